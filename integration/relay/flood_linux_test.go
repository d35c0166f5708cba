package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/relay/wire"
)

// flood sends 10,000 DISCOVERs a second, each of another client, until the test ends. It tells how
// many went out.
func flood(t testing.TB, p *lab.Pair) (sent func() int) {
	t.Helper()
	var conn *packet.Conn
	labtest.In(t, p, clientEnd, func() (err error) {
		conn, err = packet.Listen(p.Ifi[clientEnd], packet.Raw, 0, nil)
		return err
	})
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))
	must(t, err)
	payload := m.ToBytes()
	n, stop, ended := 0, make(chan struct{}), make(chan int, 1)
	go func() {
		defer func() { ended <- n }()
		for begin := time.Now(); ; time.Sleep(time.Millisecond) {
			for want := int(time.Since(begin).Milliseconds()) * 10; n < want; n++ {
				d := wire.Datagram{EthDst: [6]byte{255, 255, 255, 255, 255, 255}, EthSrc: [6]byte{2}, Dst: 0xffffffff, SrcPort: 68, DstPort: 67, Payload: payload}
				binary.BigEndian.PutUint32(d.EthSrc[2:], rand.Uint32())
				copy(payload[28:], d.EthSrc[:])
				copy(payload[4:], d.EthSrc[2:])
				_, _ = conn.WriteTo(d.Append(nil, 0, false), &packet.Addr{HardwareAddr: d.EthDst[:]}) // it may be too much
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	total := -1
	sent = func() int {
		if total < 0 {
			close(stop)
			total = <-ended
			conn.Close()
		}
		return total
	}
	t.Cleanup(func() { sent() })
	return sent
}

// smallPool is a server with 40 addresses in all for segments 1 and 2, which share a network. It is
// dhcpd, which keeps what it has offered for two minutes.
func smallPool(s *site) {
	s.t.Helper()
	config := labtest.Write(s.t, s.dir, "dhcpd.conf", 0o600, `
authoritative; ping-check false;
subnet 192.0.2.0 netmask 255.255.255.0 { }
subnet 10.1.0.0 netmask 255.255.0.0 { range 10.1.0.100 10.1.0.139; }
`)
	leases := labtest.Write(s.t, s.dir, "dhcpd.leases", 0o600, "")
	labtest.Start(s.t, s.up, serverEnd, nil, labtest.Tool(s.t, "dhcpd", "isc-dhcp-server"),
		"-4", "-f", "-d", "--no-pid", "-cf", config, "-lf", leases, "far").Says(s.t, servers[0].ready)
}

// macvlan is a second client at a port, with a hardware address of its own.
func macvlan(t testing.TB, p *lab.Pair) *lab.Pair {
	t.Helper()
	second := *p
	labtest.In(t, p, clientEnd, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = "mv0", p.Ifi[clientEnd].Index
		err := netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
		if err == nil {
			err = netlink.LinkSetUp(mustLink("mv0"))
		}
		if err == nil {
			second.Ifi[clientEnd], err = net.InterfaceByName("mv0")
		}
		return err
	})
	return &second
}

// TestStarvation: 10,000 forged DISCOVERs a second at one port. Without limits nobody gets an
// address any more. With the relay's own, or with the guard's and the relay's, who comes to another
// port is served at once, who comes to that very port when it asks again, and who has an
// address there notices nothing; the server hears next to nothing of it.
func TestStarvation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		guard   bool
		clients int
	}{
		{"without limits", false, 0},
		{"at most 4 clients at a port", false, 4},
		{"and the guard", true, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, 2)
			more := []string{}
			if tt.guard {
				s.guard("relay-guard.yaml", `["veth*"]`, `["seg*"]`)
				more = append(more, "set: bindings\nbpffs: "+s.host.Root)
			}
			smallPool(s)
			// Both ports are of one network: the agent is 10.1.0.1 at each.
			s.relay(s.config(append(more, "interfaces: [{names: ['seg*'], address: 10.1.0.1, clients: "+string(rune('0'+tt.clients))+"}]")...), "--quiet")
			known := newClient(t, s.segments[0])
			ip := known.lease().YourIPAddr
			newcomer := macvlan(t, s.segments[0])
			sent := flood(t, s.segments[0])
			time.Sleep(time.Second) // the flood is at work
			c := newClient(t, s.segments[1])
			discover := c.message(dhcpv4.MessageTypeDiscover)
			c.broadcast(discover)
			starved := c.answer(discover, 2*time.Second) == nil
			if starved != (tt.clients == 0) {
				t.Errorf("a client at another port is starved: %t", starved)
			}
			if !starved {
				c.lease()
				again := known.message(dhcpv4.MessageTypeRequest, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(ip)))
				known.broadcast(again)
				known.gets(again, dhcpv4.MessageTypeAck)
				labtest.DHCPClients[0].Start(t, newcomer, clientEnd, int(labtest.Patience.Seconds()), nil).Says(t, "configured 10.1.")
			}
			n := sent()
			s.eventually("the relay has read what was sent", func() bool { return s.count("seg1", "discover")+s.count("seg1", "too-many-clients") > 0 })
			heard := s.count("seg1", "discover")
			t.Logf("%d DISCOVERs were sent; the relay took %d, and refused %d", n, heard, s.count("seg1", "too-many-clients"))
			// A few are the honest clients' own.
			if tt.clients > 0 && heard > 12 || n < 9000 {
				t.Errorf("%d of %d went to the server", heard, n)
			}
		})
	}
}
