package afpacket

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/mdlayher/arp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
)

func address4(t *testing.T, p *lab.Pair, i int, cidr string) {
	t.Helper()
	in(t, p, i, func() error {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(p.Ifi[i].Name)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, addr)
	})
}

// refuseForgedARP drops ARP that does not speak for 192.0.2.1.
func refuseForgedARP(p *filter.Packet) firewall.Decision {
	if p.HasARP && p.ARP().SrcIPv4() != 0xc0000201 {
		return firewall.Decision{Outcome: firewall.Outcome{Reason: firewall.ReasonRule}, Rule: &firewall.Rule{Name: "no-forged-arp"}}
	}
	return accept(p)
}

// github.com/mdlayher/arp runs over a Conn unchanged.
func TestARP(t *testing.T) {
	p := newLab(t)
	address4(t, p, 0, "192.0.2.1/24")
	address4(t, p, 1, "192.0.2.2/24")
	c := conn(t, p, Raw, unix.ETH_P_ARP, &Config{Firewall: judge(refuseForgedARP)})
	var client *arp.Client
	in(t, p, 0, func() (err error) { client, err = arp.New(p.Ifi[0], c); return err })
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	mac, err := client.Resolve(netip.MustParseAddr("192.0.2.2"))
	if err != nil || mac.String() != p.Ifi[1].HardwareAddr.String() {
		t.Errorf("%v, %v", mac, err)
	}
	forged, err := arp.NewPacket(arp.OperationReply, p.Ifi[0].HardwareAddr, netip.MustParseAddr("192.0.2.2"),
		broadcast.HardwareAddr, netip.MustParseAddr("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	if e := mustBlock(t, client.WriteTo(forged, broadcast.HardwareAddr)); e.Rule != "no-forged-arp" || e.Len != 60 {
		t.Errorf("%+v", e)
	}
}

// refuseServer drops what only a DHCP server says.
func refuseServer(p *filter.Packet) firewall.Decision {
	if p.HasDHCP && p.UDP().SrcPort == 67 {
		return firewall.Decision{Outcome: firewall.Outcome{Reason: firewall.ReasonRule}, Rule: &firewall.Rule{Name: "no-rogue-server"}}
	}
	return accept(p)
}

// github.com/insomniacslk/dhcp runs over a Conn unchanged, client and server;
// a rogue server is heard by nobody.
func TestDHCP(t *testing.T) {
	p := newLab(t)
	offered := net.IPv4(192, 0, 2, 77)
	for _, rogue := range []bool{false, true} {
		cfg := &Config{Firewall: judge(accept)}
		if rogue {
			cfg = &Config{Firewall: judge(refuseServer)}
		}
		var farConn *Conn
		in(t, p, 1, func() (err error) { farConn, err = Listen(p.Ifi[1], Datagram, unix.ETH_P_IP, cfg); return err })
		answered := make(chan error, 10)
		server, err := server4.NewServer("", nil, func(c net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
			reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(offered),
				dhcpv4.WithServerIP(net.IPv4(192, 0, 2, 2)))
			if err == nil {
				_, err = c.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 68})
			}
			answered <- err
		}, server4.WithConn(nclient4.NewBroadcastUDPConn(farConn, &net.UDPAddr{Port: 67})))
		if err != nil {
			t.Fatal(err)
		}
		go server.Serve()

		near := conn(t, p, Datagram, unix.ETH_P_IP, &Config{Firewall: judge(refuseServer)})
		client, err := nclient4.NewWithConn(nclient4.NewBroadcastUDPConn(near, &net.UDPAddr{Port: 68}), p.Ifi[0].HardwareAddr,
			nclient4.WithTimeout(300*time.Millisecond), nclient4.WithRetry(2))
		if err != nil {
			t.Fatal(err)
		}
		offer, err := client.DiscoverOffer(context.Background())
		switch {
		case rogue && err == nil:
			t.Errorf("a rogue offer arrived: %v", offer)
		case !rogue && (err != nil || !offer.YourIPAddr.Equal(offered)):
			t.Errorf("%v, %v", offer, err)
		}
		if err := <-answered; rogue {
			if e := mustBlock(t, err); e.Rule != "no-rogue-server" {
				t.Errorf("%+v", e)
			}
		} else if err != nil {
			t.Error(err)
		}
		if err := errors.Join(client.Close(), server.Close()); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
}
