package relay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
)

// bridge is a site whose agent only listens: the ports veth1, veth2 and so on lead to clients, and
// the server, which is their gateway as well, is 10.1.0.1 at the uplink near.
type bridge struct {
	*site
	ports []*lab.Pair
	// attacker, victim and honest are the clients at the first three ports; the first two
	// have addresses.
	attacker, victim *client
	// sets are those that hold the bindings.
	sets []string
}

func newBridge(t testing.TB, guarded bool) *bridge {
	t.Helper()
	if guarded {
		return newBridgeUnder(t, []string{"bindings"}, "relay-guard.yaml")
	}
	return newBridgeUnder(t, nil, "")
}

// newBridgeUnder is one with a policy of the project's in force, whose sets the agent keeps; "" is none.
func newBridgeUnder(t testing.TB, sets []string, policy string, replace ...string) *bridge {
	t.Helper()
	b := newPorts(t)
	if policy != "" {
		b.guard(policy, replace...)
		b.sets = sets
	}
	b.snoop("")
	b.attacker, b.victim = b.client(0), b.client(1)
	return b
}

// snoop starts the server and the agent, whose interfaces have these keys.
func (b *bridge) snoop(keys string) {
	b.t.Helper()
	servers[2].start(b.t, b.up, 1, 600).Says(b.t, servers[2].ready)
	set := ""
	if b.host.Root != "" {
		set = "set: [" + strings.Join(b.sets, ", ") + "]\nbpffs: " + b.host.Root
	}
	b.relay(labtest.Write(b.t, b.dir, "relay.yaml", 0o600, "mode: snoop\ndatabase: "+b.dir+"/relay.db\nservers: [10.1.0.1]\ninterfaces: [{names: ['veth*']"+keys+"}]\n"+set+"\n"))
}

// newPorts is the bridge alone.
func newPorts(t testing.TB) *bridge {
	t.Helper()
	b := &bridge{site: newSite(t, 0)}
	labtest.Address(t, b.up, serverEnd, "10.1.0.1/16")
	var master int
	labtest.In(t, b.up, agentEnd, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		br, err := netlink.LinkByName("br0")
		if err == nil {
			master = br.Attrs().Index
			err = errors.Join(netlink.LinkSetUp(br), netlink.LinkSetMasterByIndex(mustLink("near"), master))
		}
		return err
	})
	for i := 1; i <= 3; i++ {
		p := b.wire(fmt.Sprintf("veth%d", i), "eth0")
		labtest.In(t, p, agentEnd, func() error { return netlink.LinkSetMasterByIndex(mustLink(p.Ifi[agentEnd].Name), master) })
		b.ports = append(b.ports, p)
	}
	return b
}

func mustLink(name string) netlink.Link {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return &netlink.Dummy{} // index 0: the next call fails
	}
	return l
}

// guard puts a policy of the project's in force at the agent's end.
func (s *site) guard(name string, replace ...string) {
	s.t.Helper()
	for _, err := range []error{bpf.Probe(), gate.Probe(0)} {
		if err != nil {
			labtest.Cannot(s.t, err.Error())
		}
	}
	s.enforce(name, strings.NewReplacer(replace...).Replace(labtest.Example(s.t, name)))
}

// enforce puts a policy in force at the agent's end.
func (s *site) enforce(name, text string) {
	s.t.Helper()
	root, unmount, err := lab.BPFFS()
	must(s.t, err)
	s.t.Cleanup(unmount)
	s.host = kernel.Host{Root: root, NetNS: int(s.up.NS[agentEnd])}
	status, err := s.host.Apply(kernel.Source{Name: name, Text: []byte(text)}, kernel.ApplyOptions{})
	must(s.t, err)
	for _, w := range status.Warnings {
		if !strings.Contains(w, "interfaces that appear later") {
			s.t.Errorf("%s: %s", name, w)
		}
	}
}

// decided is how many frames a rule has decided.
func (s *site) decided(rule string) uint64 {
	s.t.Helper()
	rules, err := s.host.Rules()
	must(s.t, err)
	for _, r := range rules {
		if r.Name == rule {
			return r.Frames
		}
	}
	s.t.Fatalf("no rule %s", rule)
	return 0
}

// client gets the client at a port an address.
func (b *bridge) client(port int) *client {
	b.t.Helper()
	c := newClient(b.t, b.ports[port])
	ack := c.lease()
	c.configure(ack)
	b.eventually("the binding is known", func() bool {
		return b.bindings()[c.ip.String()].Interface == b.ports[port].Ifi[agentEnd].Name
	})
	for _, set := range b.sets {
		b.eventually("the binding is in force", func() bool { return b.holds(set, c.ip.String()) })
	}
	return c
}

// has tells whether an address is in the set in force.
func (s *site) has(ip string) bool {
	s.t.Helper()
	return s.holds("bindings", ip)
}

func (s *site) holds(set, ip string) bool {
	s.t.Helper()
	list, err := s.host.ListSet(set)
	must(s.t, err)
	for _, e := range list {
		if e.Text[len(e.Text)-1] == ip {
			return true
		}
	}
	return false
}

// works says that a client reaches its gateway, at the right hardware address.
func (b *bridge) works(c *client) {
	b.t.Helper()
	gateway := netip.MustParseAddr("10.1.0.1")
	labtest.In(b.t, c.p, clientEnd, func() error { // forget, and ask anew
		err := netlink.NeighDel(&netlink.Neigh{LinkIndex: c.p.Ifi[clientEnd].Index, IP: gateway.AsSlice(), Family: netlink.FAMILY_V4})
		if errors.Is(err, unix.ENOENT) {
			err = nil
		}
		return err
	})
	// The gateway's answer is that nobody listens there (ICMP).
	labtest.In(b.t, c.p, clientEnd, func() error {
		u, err := net.Dial("udp4", "10.1.0.1:9")
		if err != nil {
			return err
		}
		defer u.Close()
		if _, err := u.Write([]byte("are you there")); err != nil {
			return err
		}
		must(b.t, u.SetReadDeadline(time.Now().Add(labtest.Patience)))
		if _, err := u.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			b.t.Errorf("%s does not reach its gateway: %v", c.ip, err)
		}
		return nil
	})
	if mac := labtest.Cached(b.t, c.p, clientEnd, gateway); mac.String() != b.up.Ifi[serverEnd].HardwareAddr.String() {
		b.t.Errorf("%s takes %s for its gateway", c.ip, mac)
	}
}

// tally counts frames that arrive, by the display filters that they match.
type tally struct {
	t         testing.TB
	receivers []*lab.Receiver
	count     map[string]int
	exprs     map[string]filter.Expr
}

func (b *bridge) tally(matches ...string) *tally {
	b.t.Helper()
	return b.tallyAt([]*lab.Pair{b.victim.p, b.ports[2], b.up}, matches...)
}

// tallyAt is one of what arrives at the far ends of some pairs.
func (b *bridge) tallyAt(pairs []*lab.Pair, matches ...string) *tally {
	b.t.Helper()
	s := &tally{t: b.t, count: map[string]int{}, exprs: map[string]filter.Expr{}}
	for _, p := range pairs {
		r, err := p.Receive(clientEnd)
		must(b.t, err)
		b.t.Cleanup(func() { r.Close() })
		s.receivers = append(s.receivers, r)
	}
	for _, match := range matches {
		expr, err := filter.Parse(match, nil)
		must(b.t, err)
		s.exprs[match] = expr
	}
	return s
}

// read counts what has arrived.
func (s *tally) read() {
	s.t.Helper()
	var p filter.Packet
	for _, r := range s.receivers {
		for range 20_000 {
			frame, err := r.Next(10 * time.Millisecond)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			must(s.t, err)
			p.Decode(frame, nil)
			for match, expr := range s.exprs {
				if filter.Eval(expr, &p, nil) {
					s.count[match]++
				}
			}
		}
	}
}

// renameLink gives an interface another name, which it has to be down for.
func renameLink(from, to string) error {
	l, err := netlink.LinkByName(from)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, to), netlink.LinkSetUp(l))
}
