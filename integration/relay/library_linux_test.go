package relay

import (
	"errors"
	"net"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// operateLibrary is nclient4's own Client over a guarded socket, whose policy is that of a host which
// is a DHCP client. It declines nothing.
func operateLibrary(s *site, e *ear) {
	t, mac := s.t, e.p.Ifi[clientEnd].HardwareAddr
	policy, _, err := firewall.Parse("dhcp-host.yaml", []byte(labtest.Example(t, "dhcp-host.yaml")))
	must(t, err)
	guard, err := firewall.New(policy)
	must(t, err)
	var raw *afpacket.Conn
	labtest.In(t, e.p, clientEnd, func() error {
		raw, err = afpacket.Listen(e.p.Ifi[clientEnd], afpacket.Datagram, unix.ETH_P_IP, &afpacket.Config{Firewall: guard})
		return err
	})
	conn := nclient4.NewBroadcastUDPConn(raw, &net.UDPAddr{Port: nclient4.ClientPort})
	// Each message once: what is heard twice was sent twice.
	c, err := nclient4.NewWithConn(conn, mac, nclient4.WithTimeout(labtest.Patience), nclient4.WithRetry(1))
	must(t, err)
	t.Cleanup(func() { c.Close() })

	forged, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 0x99})
	must(t, err)
	var blocked *afpacket.BlockedError
	if _, err := conn.WriteTo(forged.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: nclient4.ServerPort}); !errors.As(err, &blocked) {
		t.Errorf("a DISCOVER in another's name: %v", err)
	}
	lease, err := c.Request(t.Context())
	must(t, err)
	for _, to := range []net.IP{lease.ACK.ServerIdentifier(), net.IPv4bcast} {
		before := s.of(e.p)
		time.Sleep(10 * time.Millisecond) // the new lease ends later
		ack, err := c.SendAndRead(t.Context(), &net.UDPAddr{IP: to, Port: nclient4.ServerPort}, renewal(s, lease.ACK), nclient4.IsMessageType(dhcpv4.MessageTypeAck))
		must(t, err)
		if after := s.of(e.p); before == nil || after == nil || after.Expiry <= before.Expiry || after.IP.String() != ack.YourIPAddr.String() {
			t.Errorf("renewed at %s: %+v after %+v", to, after, before)
		}
	}
	again, err := c.Renew(t.Context(), lease)
	must(t, err)
	must(t, c.Release(again))
	s.eventually("the library releases its address", func() bool { return e.heard("release") && s.of(e.p) == nil })
}

func renewal(s *site, ack *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	m, err := dhcpv4.NewRenewFromAck(ack)
	must(s.t, err)
	return m
}
