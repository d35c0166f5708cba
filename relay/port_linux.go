package relay

import (
	"fmt"
	"math"
	"net"
	"sync/atomic"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/wire"
)

// port is an interface towards clients.
type port struct {
	counters
	ifi   *net.Interface
	mac   [6]byte
	first uint32 // its first address
	gone  bool   // it is not read any more; Agent.mu
	// circuits are by VLAN. Another map takes this one's place when the configuration changes.
	circuits atomic.Pointer[map[uint16]*circuit]
	sockets  map[wire.Frames]*wire.Socket // Agent.opening
	// out sends to clients; nil where nothing is relayed.
	out *afpacket.Conn
}

// circuit is the one of a VLAN, nil if there is none.
func (p *port) circuit(vlan uint16) *circuit { return (*p.circuits.Load())[vlan] }

// open begins to read an interface.
func (a *Agent) open(ifi *net.Interface) (err error) {
	p := &port{ifi: ifi, first: firstAddress(ifi), sockets: map[wire.Frames]*wire.Socket{}}
	if len(ifi.HardwareAddr) != len(p.mac) {
		return fmt.Errorf("%s is no Ethernet interface", ifi.Name)
	}
	copy(p.mac[:], ifi.HardwareAddr)
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	circuits, err := a.config.Load().circuits(p)
	if err == nil {
		err = a.distinct(circuits)
	}
	if err != nil {
		return err
	}
	if !a.snoops {
		if p.out, err = afpacket.Listen(ifi, afpacket.Raw, 0, &afpacket.Config{Firewall: a.guard}); err != nil {
			return err
		}
	}
	if err := a.listen(p, circuits); err != nil {
		return err
	}
	a.join(p, circuits)
	for f, s := range p.sockets {
		a.hear(p, f, s)
	}
	return nil
}

// listen opens the sockets that an interface with these circuits lacks, and reads none of them yet.
func (a *Agent) listen(p *port, circuits map[uint16]*circuit) error {
	for _, f := range a.frames(circuits) {
		if p.sockets[f] != nil {
			continue
		}
		s, err := wire.Packet(p.ifi.Index, p.ifi.Name, f)
		if err != nil {
			return err
		}
		p.sockets[f] = s
	}
	return nil
}

// hear reads a socket until it is closed.
func (a *Agent) hear(p *port, f wire.Frames, s *wire.Socket) {
	a.jobs.Go(func() error {
		if err := s.Read(func(b *wire.Batch) { a.heard(p, f, b) }); err != nil {
			a.log.Warn("interface is not read any more", "interface", p.ifi.Name, "error", err)
		}
		return nil
	})
}

// frames are those that are read. A relay agent reads requests where the IP stack does,
// where there is a VLAN tag before it is forgotten, and answers that go past it.
func (a *Agent) frames(circuits map[uint16]*circuit) []wire.Frames {
	if a.snoops {
		return []wire.Frames{wire.Everything}
	}
	frames := []wire.Frames{wire.Routed}
	if circuits[0] != nil {
		frames = append(frames, wire.Requests)
	}
	if len(circuits) > 1 || circuits[0] == nil {
		frames = append(frames, wire.TaggedRequests)
	}
	return frames
}

// circuits makes an interface's circuits.
func (c *Config) circuits(p *port) (map[uint16]*circuit, error) {
	list := map[uint16]*circuit{}
	for _, vlan := range c.vlans(p.ifi.Name) {
		n := c.entry(p.ifi.Name, vlan)
		address := uint32(n.Address)
		if address == 0 {
			address = p.first
		}
		circuit, err := c.newCircuit(p.ifi, n, address)
		if err != nil {
			return nil, err
		}
		circuit.port = p
		list[vlan] = circuit
	}
	return list, nil
}

// distinct refuses circuits that answers could not tell from those there are, or from each other.
func (a *Agent) distinct(circuits map[uint16]*circuit) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	ids := map[string]*circuit{}
	for _, c := range a.places {
		ids[c.id] = c
	}
	for _, c := range circuits {
		if err := c.claim(ids); err != nil {
			return err
		}
	}
	return nil
}

// claim takes the circuit's ID, unless another place has it.
func (c *circuit) claim(ids map[string]*circuit) error {
	if other := ids[c.id]; other != nil && other.Place != c.Place {
		return fmt.Errorf("%s and %s have the same circuit ID %q; write {iface} or {vlan} into its template", c.Place, other.Place, c.id)
	}
	ids[c.id] = c
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
func (a *Agent) join(p *port, circuits map[uint16]*circuit) {
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
	a.serve(p, circuits)
}

// serve puts circuits in the place of those that an interface had. Under Agent.mu.
func (a *Agent) serve(p *port, circuits map[uint16]*circuit) {
	now := binding.BootTime()
	for id, c := range a.circuits {
		switch {
		case c.until != 0 && c.until < now:
			delete(a.circuits, id)
		case c.port == p && c.until == 0:
			// Answers to what has been asked may still name it.
			former := *c
			former.until = now + binding.AnswerTime
			a.circuits[id] = &former
			delete(a.places, c.Place)
		}
	}
	limit := 0
	for _, c := range circuits {
		a.circuits[c.id], a.places[c.Place] = c, c
		limit = max(limit, c.config.Clients)
	}
	a.table.Limit(p.ifi.Name, limit)
	p.circuits.Store(&circuits)
	a.index()
}

const inForce = math.MaxInt64

// index finds the addresses at which servers may answer. Under Agent.mu.
func (a *Agent) index() {
	now := binding.BootTime()
	for g, until := range a.giaddrs {
		switch {
		case until == inForce:
			a.giaddrs[g] = now + binding.AnswerTime
		case until < now:
			delete(a.giaddrs, g)
		}
	}
	for _, c := range a.circuits {
		if c.until == 0 {
			a.giaddrs[c.giaddr] = inForce
		}
	}
}

// forget takes an interface's circuits away; its counters stay. Under Agent.mu.
func (a *Agent) forget(p *port) {
	for id, c := range a.circuits {
		if c.port == p {
			delete(a.circuits, id)
		}
	}
	for place, c := range a.places {
		if c.port == p {
			delete(a.places, place)
		}
	}
	p.gone = true
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
