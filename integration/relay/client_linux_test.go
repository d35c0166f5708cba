package relay

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// client is a DHCP client whose every message the tests decide, on insomniacslk/dhcp's socket.
type client struct {
	t   testing.TB
	p   *lab.Pair
	mac net.HardwareAddr
	// wire is for messages without an address, udp for those with one.
	wire, udp net.PacketConn
	// own is an option 82 that it sends with everything, nil for none.
	own []dhcpv4.Modifier
	ip  net.IP
}

func newClient(t testing.TB, p *lab.Pair) *client {
	t.Helper()
	c := &client{t: t, p: p, mac: p.Ifi[clientEnd].HardwareAddr}
	labtest.In(t, p, clientEnd, func() error {
		raw, err := packet.Listen(p.Ifi[clientEnd], packet.Datagram, unix.ETH_P_IP, nil)
		if err == nil {
			c.wire = nclient4.NewBroadcastUDPConn(raw, &net.UDPAddr{Port: nclient4.ClientPort})
		}
		return err
	})
	t.Cleanup(func() { c.wire.Close() })
	return c
}

// message is one of the client's, in its own name.
func (c *client) message(typ dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	c.t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithMessageType(typ), dhcpv4.WithHwAddr(c.mac)}, append(more, c.own...)...)...)
	must(c.t, err)
	return m
}

// broadcast sends, and ask waits for an answer of that type, which is nil if there is none.
func (c *client) broadcast(m *dhcpv4.DHCPv4) {
	c.t.Helper()
	_, err := c.wire.WriteTo(m.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: nclient4.ServerPort})
	must(c.t, err)
}

func (c *client) unicast(m *dhcpv4.DHCPv4, to net.IP) {
	c.t.Helper()
	_, err := c.udp.WriteTo(m.ToBytes(), &net.UDPAddr{IP: to, Port: nclient4.ServerPort})
	must(c.t, err)
}

func (c *client) answer(to *dhcpv4.DHCPv4, patience time.Duration) *dhcpv4.DHCPv4 {
	c.t.Helper()
	must(c.t, c.wire.SetReadDeadline(time.Now().Add(patience)))
	for b := make([]byte, 2048); ; {
		n, _, err := c.wire.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		must(c.t, err)
		m, err := dhcpv4.FromBytes(b[:n])
		if err == nil && m.OpCode == dhcpv4.OpcodeBootReply && m.TransactionID == to.TransactionID && m.ClientHWAddr.String() == c.mac.String() {
			return m
		}
	}
}

// must answer of a type.
func (c *client) gets(to *dhcpv4.DHCPv4, typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	c.t.Helper()
	m := c.answer(to, labtest.Patience)
	if m == nil || m.MessageType() != typ {
		c.t.Fatalf("%v, want %s as answer to %s", m, typ, to.Summary())
	}
	return m
}

// lease is the four-way exchange.
func (c *client) lease(more ...dhcpv4.Modifier) (ack *dhcpv4.DHCPv4) {
	c.t.Helper()
	discover := c.message(dhcpv4.MessageTypeDiscover, more...)
	c.broadcast(discover)
	offer := c.gets(discover, dhcpv4.MessageTypeOffer)
	request := c.message(dhcpv4.MessageTypeRequest, append(more, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))...)
	c.broadcast(request)
	return c.gets(request, dhcpv4.MessageTypeAck)
}

// configure takes the address, and a way to the servers.
func (c *client) configure(ack *dhcpv4.DHCPv4) {
	c.t.Helper()
	c.ip = ack.YourIPAddr
	labtest.Address(c.t, c.p, clientEnd, c.ip.String()+"/16")
	gateway := net.IPv4(10, c.ip.To4()[1], 0, 1)
	labtest.In(c.t, c.p, clientEnd, func() (err error) {
		if err = netlink.RouteReplace(&netlink.Route{Gw: gateway, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}}); err == nil {
			c.udp, err = net.ListenUDP("udp4", &net.UDPAddr{IP: c.ip, Port: nclient4.ClientPort})
		}
		return err
	})
}

// unconfigure gives it back.
func (c *client) unconfigure() {
	c.t.Helper()
	c.udp.Close()
	labtest.In(c.t, c.p, clientEnd, func() error {
		link, err := netlink.LinkByIndex(c.p.Ifi[clientEnd].Index)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		for i := range addrs {
			err = errors.Join(err, netlink.AddrDel(link, &addrs[i]))
		}
		return err
	})
}
