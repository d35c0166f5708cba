//go:build linux

package main

import (
	_ "embed"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/arp"
	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab"
)

//go:embed demo.yaml
var demoPolicy []byte

// demoSockets are what a program would have: mdlayher/arp over a Raw socket,
// insomniacslk/dhcp over a Datagram socket, as a client and as a server.
type demoSockets struct {
	mac            net.HardwareAddr
	raw, dgram     *afpacket.Conn
	arp            *arp.Client
	client, server net.PacketConn
}

func newDemoGuard(pair *lab.Pair) (*demoGuard, error) {
	policy, _, err := firewall.Parse("demo.yaml", demoPolicy)
	if err != nil {
		return nil, err
	}
	fw, err := firewall.New(policy)
	if err != nil {
		return nil, err
	}
	g := &demoGuard{demoSockets: &demoSockets{mac: pair.Ifi[0].HardwareAddr}, fw: fw}
	err = pair.Do(0, func() error { return g.open(pair.Ifi[0], &afpacket.Config{Firewall: g}) })
	if err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (s *demoSockets) open(ifi *net.Interface, cfg *afpacket.Config) (err error) {
	if s.raw, err = afpacket.Listen(ifi, afpacket.Raw, 0x0806, cfg); err != nil {
		return err
	}
	if s.dgram, err = afpacket.Listen(ifi, afpacket.Datagram, 0x0800, cfg); err != nil {
		return err
	}
	s.client = nclient4.NewBroadcastUDPConn(s.dgram, &net.UDPAddr{Port: dhcpv4.ClientPort})
	s.server = nclient4.NewBroadcastUDPConn(s.dgram, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: dhcpv4.ServerPort})
	// arp.New wants an interface that has an address.
	own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 5), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifi.Index}}, own); err != nil {
		return err
	}
	s.arp, err = arp.New(ifi, s.raw)
	return err
}

func (s *demoSockets) close() {
	for _, c := range []*afpacket.Conn{s.raw, s.dgram} {
		if c != nil {
			c.Close()
		}
	}
}

// demoFrame is one frame of the demo, sent through a guarded socket.
type demoFrame struct {
	demoRow
	send  func(*demoSockets) error
	again bool   // it is also sent past the guarded sockets
	bytes []byte // as the guard saw them
}

const (
	byARP  = "mdlayher/arp over a Raw socket"
	byHand = "bytes over a Raw socket"
	byDHCP = "insomniacslk/dhcp over a Datagram socket"
)

var (
	demoBroadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	demoVictim    = net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	demoVIP       = netip.AddrFrom4([4]byte{192, 0, 2, 10})
	demoForeign   = netip.AddrFrom4([4]byte{192, 0, 2, 11})
)

// demoFrames are what an honest node of hardware address mac sends, and what
// nobody should.
func demoFrames(mac net.HardwareAddr) []demoFrame {
	return []demoFrame{
		{again: true, demoRow: demoRow{by: byARP, name: "announcement of the own virtual address", honest: true}, send: announce(arp.OperationRequest, mac, demoVIP)},
		{demoRow: demoRow{by: byARP, name: "reply for the own virtual address", honest: true}, send: announce(arp.OperationReply, mac, demoVIP)},
		{demoRow: demoRow{by: byARP, name: "announcement of another node's address"}, send: announce(arp.OperationRequest, mac, demoForeign)},
		{demoRow: demoRow{by: byARP, name: "reply with another's hardware address"}, send: announce(arp.OperationReply, demoVictim, demoVIP)},
		{again: true, demoRow: demoRow{by: byHand, name: "a victim's address behind two VLAN tags"}, send: raw(mac, []byte{0x81, 0, 0, 5, 0x81, 0, 0, 0, 8, 6}, 6)},
		{again: true, demoRow: demoRow{by: byHand, name: "a victim's address in LLC/SNAP"}, send: raw(mac, []byte{0, 36, 0xaa, 0xaa, 3, 0, 0, 0, 8, 6}, 6)},
		{demoRow: demoRow{by: byHand, name: "ARP with a hardware size of 255"}, send: raw(mac, []byte{8, 6}, 255)},
		{demoRow: demoRow{by: byDHCP, name: "DISCOVER", honest: true}, send: discover(mac)},
		{demoRow: demoRow{by: byDHCP, name: "DISCOVER in another's name (starvation)"}, send: discover(demoVictim)},
		{demoRow: demoRow{by: byDHCP, name: "DISCOVER with a forged option 82"}, send: discover(mac, dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(
			dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte("eth7")))))},
		{demoRow: demoRow{by: byDHCP, name: "DISCOVER with two message types"}, send: discover(mac, dhcpv4.WithGeneric(
			dhcpv4.OptionDHCPMessageType, []byte{1, 5}))},
		{again: true, demoRow: demoRow{by: byDHCP, name: "OFFER of a rogue server"}, send: offer(demoVictim)},
	}
}

func announce(op arp.Operation, hw net.HardwareAddr, ip netip.Addr) func(*demoSockets) error {
	return func(s *demoSockets) error {
		p, err := arp.NewPacket(op, hw, ip, demoBroadcast, ip)
		if err != nil {
			return err
		}
		return s.arp.WriteTo(p, demoBroadcast)
	}
}

// raw is an ARP reply with another's hardware address behind a header that may
// hide it from a filter on the EtherType.
func raw(mac net.HardwareAddr, header []byte, hwSize byte) func(*demoSockets) error {
	b := append(append([]byte(nil), demoBroadcast...), mac...)
	b = append(append(b, header...), 0, 1, 8, 0, hwSize, 4, 0, 2)
	b = append(append(append(b, demoVictim...), demoVIP.AsSlice()...), demoBroadcast...)
	b = append(b, demoVIP.AsSlice()...)
	b = append(b, make([]byte, max(0, 60-len(b)))...)
	return func(s *demoSockets) error {
		_, err := s.raw.WriteTo(b, &afpacket.Addr{HardwareAddr: demoBroadcast})
		return err
	}
}

func discover(chaddr net.HardwareAddr, mods ...dhcpv4.Modifier) func(*demoSockets) error {
	return func(s *demoSockets) error {
		m, err := dhcpv4.NewDiscovery(chaddr, mods...)
		if err != nil {
			return err
		}
		_, err = s.client.WriteTo(m.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ServerPort})
		return err
	}
}

func offer(to net.HardwareAddr) func(*demoSockets) error {
	return func(s *demoSockets) error {
		ask, err := dhcpv4.NewDiscovery(to)
		if err != nil {
			return err
		}
		m, err := dhcpv4.NewReplyFromRequest(ask, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer),
			dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 66)), dhcpv4.WithServerIP(net.IPv4(192, 0, 2, 1)))
		if err != nil {
			return err
		}
		_, err = s.server.WriteTo(m.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
		return err
	}
}
