package relay

import (
	"fmt"
	"net"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/relay/wire"
)

// port is an interface towards clients.
type port struct {
	counters
	ifi      *net.Interface
	mac      [6]byte
	first    uint32              // its first address
	gone     bool                // it is not read any more; Agent.mu
	circuits map[uint16]*circuit // by VLAN
	sockets  []*wire.Socket
	// out sends to clients; nil where nothing is relayed.
	out *afpacket.Conn
}

// open begins to read an interface.
func (a *Agent) open(ifi *net.Interface) (err error) {
	p := &port{ifi: ifi, first: firstAddress(ifi), circuits: map[uint16]*circuit{}}
	if len(ifi.HardwareAddr) != len(p.mac) {
		return fmt.Errorf("%s is no Ethernet interface", ifi.Name)
	}
	copy(p.mac[:], ifi.HardwareAddr)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := a.circuitsOf(p); err != nil {
		return err
	}
	frames := []wire.Frames{wire.Everything}
	if a.config.Mode == ModeRelay {
		frames = a.relayed(p)
		cfg := &afpacket.Config{Firewall: a.guard}
		if p.out, err = afpacket.Listen(ifi, afpacket.Raw, 0, cfg); err != nil {
			return err
		}
	}
	for _, f := range frames {
		s, err := wire.Packet(ifi.Index, ifi.Name, f)
		if err != nil {
			return err
		}
		p.sockets = append(p.sockets, s)
	}
	a.join(p)
	for _, s := range p.sockets {
		a.jobs.Go(func() error {
			if err := s.Read(func(b *wire.Batch) { a.heard(p, b) }); err != nil {
				a.log.Warn("interface is not read any more", "interface", ifi.Name, "error", err)
			}
			return nil
		})
	}
	return nil
}

// relayed are the frames that a relay agent reads: requests where the IP stack does,
// where there is a VLAN tag before it is forgotten, and answers that go past it.
func (a *Agent) relayed(p *port) []wire.Frames {
	frames := []wire.Frames{wire.Routed}
	if p.circuits[0] != nil {
		frames = append(frames, wire.Requests)
	}
	if len(p.circuits) > 1 || p.circuits[0] == nil {
		frames = append(frames, wire.TaggedRequests)
	}
	return frames
}

// circuitsOf makes the interface's circuits.
func (a *Agent) circuitsOf(p *port) error {
	for _, vlan := range a.config.vlans(p.ifi.Name) {
		n := a.config.entry(p.ifi.Name, vlan)
		address := uint32(n.Address)
		if address == 0 {
			address = p.first
		}
		c, err := a.config.newCircuit(p.ifi, n, address)
		if err != nil {
			return err
		}
		c.port = p
		p.circuits[vlan] = c
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, c := range p.circuits {
		if other := a.circuits[c.id]; other != nil && other.Place != c.Place {
			return fmt.Errorf("%s and %s have the same circuit ID %q; write {iface} or {vlan} into its template", c.Place, other.Place, c.id)
		}
	}
	return nil
}

func firstAddress(ifi *net.Interface) uint32 {
	addrs, _ := ifi.Addrs() // without one it is not opened
	for _, addr := range addrs {
		if n, ok := addr.(*net.IPNet); ok {
			if ip := n.IP.To4(); ip != nil {
				return uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
			}
		}
	}
	return 0
}

// join makes an interface's circuits known to those who read answers.
func (a *Agent) join(p *port) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.ports[p.ifi.Name]; old != nil {
		// Counters go on where an interface comes again.
		for i := range old.reasons {
			p.reasons[i].Add(old.reasons[i].Load())
		}
		for i := range old.types {
			p.types[i].Add(old.types[i].Load())
		}
		a.forget(old)
	}
	a.ports[p.ifi.Name] = p
	limit := 0
	for _, c := range p.circuits {
		a.circuits[c.id] = c
		a.giaddrs[c.giaddr] = true
		limit = max(limit, c.config.Clients)
	}
	a.table.Limit(p.ifi.Name, limit)
}

// forget takes an interface's circuits away; its counters stay.
func (a *Agent) forget(p *port) {
	for _, c := range p.circuits {
		if a.circuits[c.id] == c {
			delete(a.circuits, c.id)
		}
	}
	p.close()
}

func (p *port) close() {
	for _, s := range p.sockets {
		_ = s.Close()
	}
	if p.out != nil {
		_ = p.out.Close()
	}
}
