package relay

import (
	"fmt"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// tagged has an end of a pair send with a VLAN tag, and takes tags off what it receives, as a VLAN
// device would, which not all kernels have.
func tagged(t testing.TB, p *lab.Pair, end, id int) {
	t.Helper()
	labtest.In(t, p, end, func() error {
		for attach, instructions := range map[ebpf.AttachType]asm.Instructions{
			ebpf.AttachTCXEgress:  {asm.Mov.Imm(asm.R2, 0x0081), asm.Mov.Imm(asm.R3, int32(id)), asm.FnSkbVlanPush.Call()}, // big-endian 0x8100
			ebpf.AttachTCXIngress: {asm.FnSkbVlanPop.Call()},
		} {
			instructions = append(instructions, asm.Mov.Imm(asm.R0, -1), asm.Return()) // TCX_NEXT
			program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: instructions})
			if err != nil {
				return err
			}
			l, err := link.AttachTCX(link.TCXOptions{Program: program, Interface: p.Ifi[end].Index, Attach: attach})
			program.Close()
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
		}
		return nil
	})
}

// TestVLAN: clients on the VLANs of two trunks. The agent is known to servers by one address, and
// tells them the clients' network by link selection (RFC 3527).
func TestVLAN(t *testing.T) {
	t.Parallel()
	for _, v := range servers {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 0)
			trunks := []*lab.Pair{s.wire("trunk1", "eth0"), s.wire("trunk2", "eth0"), s.wire("trunk3", "eth0")}
			v.start(t, s.up, 2, 600).Says(t, v.ready)
			s.relay(s.config(`interfaces:
  - {names: ["trunk*"], vlan: 11, address: 10.1.0.1, giaddr: 192.0.2.1}
  - {names: ["trunk*"], vlan: 12, address: 10.2.0.1, giaddr: 192.0.2.1}`))
			tagged(t, trunks[0], clientEnd, 11)
			labtest.DHCPClients[0].Start(t, trunks[0], clientEnd, int(labtest.Patience.Seconds()), nil).Says(t, "configured 10.1.")
			tagged(t, trunks[1], clientEnd, 12)
			if ack := newClient(t, trunks[1]).lease(); ack.YourIPAddr.To4()[1] != 2 {
				t.Errorf("on VLAN 12: %s", ack.Summary())
			}
			at := map[string]bool{}
			for _, b := range s.bindings() {
				at[fmt.Sprintf("%s:%d", b.Interface, b.VLAN)] = true
			}
			if !at["trunk1:11"] || !at["trunk2:12"] || len(at) != 2 {
				t.Errorf("bindings at %v", at)
			}
			// What has another tag, or none, is no business of the agent's.
			c := newClient(t, trunks[2])
			c.broadcast(c.message(dhcpv4.MessageTypeDiscover))
			tagged(t, trunks[2], clientEnd, 99)
			c.broadcast(c.message(dhcpv4.MessageTypeDiscover))
			s.eventually("another VLAN is counted, and none", func() bool { return s.count("trunk3", "vlan-not-configured") == 2 })
		})
	}
}

// TestTwoServers: both hear a client, which takes the one, and when that is gone goes to the other.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	second := s.wire("near2", "far")
	labtest.Address(t, second, agentEnd, "192.0.3.1/24")
	labtest.Address(t, second, serverEnd, "192.0.3.53/24")
	labtest.In(t, second, serverEnd, func() error {
		_, clients, _ := net.ParseCIDR("10.0.0.0/8")
		return netlink.RouteAdd(&netlink.Route{Dst: clients, Gw: net.IPv4(192, 0, 3, 1)})
	})
	first := servers[1].serve(s, 600)
	servers[2].start(t, second, 1, 600).Says(t, servers[2].ready)
	s.relay(labtest.Write(t, s.dir, "relay.yaml", 0o600, "database: "+s.dir+"/relay.db\nservers: [192.0.2.53, 192.0.3.53]\n"+allSegments+"\n"))
	c := newClient(t, s.segments[0])
	discover := c.message(dhcpv4.MessageTypeDiscover)
	c.broadcast(discover)
	offers := map[string]*dhcpv4.DHCPv4{}
	for range 2 {
		m := c.gets(discover, dhcpv4.MessageTypeOffer)
		offers[m.ServerIdentifier().String()] = m
	}
	kea := offers["192.0.2.53"]
	if kea == nil || offers["192.0.3.53"] == nil {
		t.Fatalf("offers by %v", offers)
	}
	request := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(kea.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(kea.ServerIdentifier())))
	c.broadcast(request)
	ack := c.gets(request, dhcpv4.MessageTypeAck)
	checkBinding(s, c, ack)
	first.Kill()
	// The other server knows nothing of the lease: it takes it over, or says so and gives another one.
	rebind := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(ack.YourIPAddr), dhcpv4.WithBroadcast(true))
	c.broadcast(rebind)
	again := c.answer(rebind, labtest.Patience)
	if again != nil && again.MessageType() == dhcpv4.MessageTypeNak {
		s.eventually("the binding is gone", func() bool { return len(s.bindings()) == 0 })
		again = c.lease()
	}
	if again == nil {
		t.Fatal("no answer by the other server")
	}
	if again.ServerIdentifier().String() != "192.0.3.53" {
		t.Errorf("the second lease: %s", again.Summary())
	}
	checkBinding(s, c, again)
}

// TestFullDisk: an ACK whose binding finds no room does not get to the client, the relay goes on,
// and when there is room the client gets its address.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	must(t, unix.Mount("tmpfs", s.dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { _ = unix.Unmount(s.dir, unix.MNT_DETACH) })
	ballast := labtest.Write(t, s.dir, "ballast", 0o600, string(make([]byte, 256<<10)))
	stub(t, s.up)
	s.relay(s.config(allSegments), "--quiet")
	c := newCrowd(t, s.segments[0])
	s.eventually("the disk is full", func() bool {
		for range 100 {
			c.ask()
		}
		return s.count("seg1", "binding-not-stored") > 0
	})
	// Those that clients have by now; others are under way.
	given := c.given()
	there := map[string]bool{}
	for ip := range s.bindings() {
		there[ip] = true
	}
	s.missing("in the database", there, given)
	must(t, unix.Unlink(ballast))
	s.eventually("there is room again", func() bool {
		c.ask()
		return len(c.given()) > len(given)
	})
}
