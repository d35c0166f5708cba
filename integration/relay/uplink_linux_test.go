package relay

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/relay/wire"
)

// A frame that somebody sends on the bridge: from the host, by its uplink, or from a client at
// a port.
type sent struct {
	name, match string
	bytes       func(b *bridge) []byte
	// rule is the one that refuses it by the uplink, "" if it is honest; port the one at a port,
	// "" if the host sends it.
	rule, port string
}

// everybody is where all frames go.
var everybody = [6]byte{255, 255, 255, 255, 255, 255}

// own is the host: br0, 10.1.0.2.
func (b *bridge) own() (mac [6]byte) {
	labtest.In(b.t, b.up, agentEnd, func() error {
		copy(mac[:], mustLink("br0").Attrs().HardwareAddr)
		return nil
	})
	return mac
}

// says is a message in a frame.
func (b *bridge) says(eth [6]byte, src, dst string, from, to uint16, xid byte, more ...dhcpv4.Modifier) []byte {
	b.t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithTransactionID(dhcpv4.TransactionID{0, 0, 1, xid}), dhcpv4.WithHwAddr(eth[:])}, more...)...)
	must(b.t, err)
	d := wire.Datagram{EthDst: everybody, EthSrc: eth, Src: number(src), Dst: number(dst), SrcPort: from, DstPort: to, Payload: m.ToBytes()}
	return d.Append(nil, 0, false)
}

func number(ip string) uint32 { return binary.BigEndian.Uint32(net.ParseIP(ip).To4()) }

func arp(eth [6]byte, ip string) []byte {
	f := append(append(append([]byte{}, everybody[:]...), eth[:]...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	f = binary.BigEndian.AppendUint32(append(f, eth[:]...), number(ip))
	f = binary.BigEndian.AppendUint32(append(f, everybody[:]...), number(ip))
	return append(f, make([]byte, 18)...)
}

var (
	giaddr = dhcpv4.WithGatewayIP(net.IPv4(10, 1, 0, 2))
	offer  = []dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply }}
)

var overUplink = []sent{
	{"the relay's DISCOVER to a server", "dhcp.id == 0x101", func(b *bridge) []byte {
		return b.says(b.own(), "10.1.0.2", "10.1.0.1", 67, 67, 1, giaddr, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))
	}, "", ""},
	{"the relay's OFFER to a client", "dhcp.id == 0x102", func(b *bridge) []byte {
		return b.says(b.own(), "10.1.0.2", "255.255.255.255", 67, 68, 2, append(offer, giaddr)...)
	}, "", ""},
	{"the OFFER of a listed server", "dhcp.id == 0x103", func(b *bridge) []byte {
		return b.says([6]byte{2, 0, 0, 0, 0, 0x53}, "10.1.0.53", "255.255.255.255", 67, 68, 3, offer...)
	}, "", ""},
	{"the host's own ARP", "arp.src.proto_ipv4 == 10.1.0.2", func(b *bridge) []byte { return arp(b.own(), "10.1.0.2") }, "", ""},
	{"a DISCOVER to a server that is not listed", "dhcp.id == 0x104", func(b *bridge) []byte {
		return b.says(b.own(), "10.1.0.2", "10.1.0.9", 67, 67, 4, giaddr, dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))
	}, "no-server", ""},
	{"an OFFER without the relay's address", "dhcp.id == 0x105", func(b *bridge) []byte {
		return b.says(b.own(), "10.1.0.2", "255.255.255.255", 67, 68, 5, offer...)
	}, "no-server", ""},
	{"an OFFER with option 82", "dhcp.id == 0x106", func(b *bridge) []byte {
		return b.says(b.own(), "10.1.0.2", "255.255.255.255", 67, 68, 6, append(offer, giaddr, dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte("x")))))...)
	}, "no-server", ""},
	{"an OFFER from a listed server's address by another", "dhcp.id == 0x107", func(b *bridge) []byte {
		return b.says(b.own(), "10.1.0.53", "255.255.255.255", 67, 68, 7, offer...)
	}, "no-server", ""},
	{"the host's ARP for the victim", "arp.src.proto_ipv4 == VICTIM && !(eth.src == VICTIMMAC)", func(b *bridge) []byte { return arp(b.own(), b.victim.ip.String()) }, "no-foreign-arp", ""},
	{"an OFFER from a port", "dhcp.id == 0x108", func(b *bridge) []byte {
		return b.says([6]byte(b.attacker.mac), b.attacker.ip.String(), "255.255.255.255", 67, 68, 8, offer...)
	}, "no-server", "no-server"},
	{"ARP for the gateway from a port", "arp.src.proto_ipv4 == 10.1.0.1 && eth.src == ATTACKERMAC", func(b *bridge) []byte { return arp([6]byte(b.attacker.mac), "10.1.0.1") }, "no-foreign-arp", "no-foreign-arp"},
}

// TestUplink: what may leave by a bridge's uplink, and what may come in at its ports, by the policy of
// the uplink alone, and by the one for both. The host's programs are held to it as clients are.
func TestUplink(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		policy string
		sets   []string
		ports  bool // it guards the ports as well
	}{
		{"", nil, false},
		{"relay-uplink.yaml", []string{"bindings"}, false},
		{"relay-host.yaml", []string{"ports", "hosts"}, true},
	} {
		t.Run(tt.policy, func(t *testing.T) {
			t.Parallel()
			b := newBridgeUnder(t, tt.sets, tt.policy, "[eth0]", "[near]", "[192.0.2.53, 192.0.2.54]", "[10.1.0.1]",
				"relay: {type: ipv4, elements: [10.1.0.1]}", "relay: {type: ipv4, elements: [10.1.0.2]}")
			if tt.policy != "" {
				mac := b.own()
				must(t, b.host.AddToSet("own", 0, []string{net.HardwareAddr(mac[:]).String(), "10.1.0.2"}))
			}
			uplink(b, tt.policy != "", tt.ports)
			if tt.policy != "" {
				labtest.DHCPClients[0].Start(t, b.ports[2], clientEnd, int(labtest.Patience.Seconds()), nil).Says(t, "configured 10.1.")
				b.works(b.victim)
			}
		})
	}
}

// send sends a frame by an interface.
func send(t testing.TB, p *lab.Pair, end int, name string, frame []byte) {
	t.Helper()
	labtest.In(t, p, end, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		c, err := packet.Listen(&net.Interface{Index: l.Attrs().Index, HardwareAddr: l.Attrs().HardwareAddr}, packet.Raw, 0, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = c.WriteTo(frame, &packet.Addr{HardwareAddr: everybody[:]}) // a refusal may be told
		return nil
	})
}

func uplink(b *bridge, guarded, ports bool) {
	t := b.t
	r := strings.NewReplacer("ATTACKERMAC", b.attacker.mac.String(), "VICTIMMAC", b.victim.mac.String(), "VICTIM", b.victim.ip.String())
	var matches []string
	for _, f := range overUplink {
		matches = append(matches, r.Replace(f.match))
	}
	out, side := b.tallyAt([]*lab.Pair{b.up}, matches...), b.tallyAt([]*lab.Pair{b.victim.p}, matches...)
	refused := map[string]uint64{}
	for _, f := range overUplink {
		from, end, name := b.up, agentEnd, "near"
		if f.port != "" {
			from, end, name = b.attacker.p, clientEnd, "eth0"
		}
		send(t, from, end, name, f.bytes(b))
		if guarded && f.rule != "" {
			refused[f.rule]++
		}
	}
	for rule, n := range refused {
		b.eventually(rule+" refuses", func() bool { return b.decided(rule) >= n })
	}
	b.eventually("what passes has arrived", func() bool {
		out.read()
		for i, f := range overUplink {
			if out.count[matches[i]] == 0 && (f.rule == "" || !guarded) {
				return false
			}
		}
		return true
	})
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		out.read()
		side.read()
	}
	for i, f := range overUplink {
		n := out.count[matches[i]]
		if pass := f.rule == "" || !guarded; (n == 1) != pass {
			t.Errorf("%s: %d arrived at the uplink's other side", f.name, n)
		}
		if f.port != "" && (side.count[matches[i]] > 0) == ports {
			t.Errorf("%s: %d arrived at another port, which is guarded: %t", f.name, side.count[matches[i]], ports)
		}
	}
}
