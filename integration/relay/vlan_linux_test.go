package relay

import (
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// onVLANs holds clients to their bindings, VLAN and all.
const onVLANs = `policy: vlans
guard: [{interfaces: ["veth*"], direction: ingress, hook: tc}]
sets: {bindings: {type: [string, number, mac, ipv4]}}
rules:
  - {name: ask, match: "udp.srcport == 68 && udp.dstport == 67 && dhcp.option.dhcp in {1, 3}", verdict: accept}
  - {name: own-arp, match: "(iface.name, vlan.id, eth.src, arp.src.proto_ipv4) in @bindings", verdict: accept}
  - {name: own-address, match: "(iface.name, vlan.id, eth.src, ip.src) in @bindings", verdict: accept}
`

// TestSnoopVLAN: clients behind a bridge's ports whose frames have a VLAN tag, and an agent that listens.
// They reach their gateway on that VLAN and on no other, and who asks on another is bound nowhere.
func TestSnoopVLAN(t *testing.T) {
	t.Parallel()
	b := newPorts(t)
	b.enforce("vlans.yaml", onVLANs)
	b.sets = []string{"bindings"}
	tagged(t, b.up, serverEnd, 11)
	b.snoop(", vlan: 11")
	tagged(t, b.ports[0], clientEnd, 11)
	b.victim = b.client(0)
	if item := b.bindings()[b.victim.ip.String()]; item.VLAN != 11 {
		t.Errorf("%+v", item)
	}
	b.works(b.victim)
	tagged(t, b.ports[1], clientEnd, 11)
	labtest.DHCPClients[0].Start(t, b.ports[1], clientEnd, int(labtest.Patience.Seconds()), nil).Says(t, "configured 10.1.")

	tagged(t, b.ports[2], clientEnd, 12)
	stray := newClient(t, b.ports[2])
	stray.broadcast(stray.message(dhcpv4.MessageTypeDiscover))
	b.eventually("another VLAN is counted", func() bool { return b.count("veth3", "vlan-not-configured") == 1 })
	if n := len(b.bindings()); n != 2 {
		t.Errorf("%d bindings", n)
	}
	// What is bound on one VLAN is refused on the other.
	before := b.decided("own-arp")
	for _, at := range [][2]string{{"11", "10.1.9.11"}, {"12", "10.1.9.12"}} {
		must(t, b.host.AddToSet("bindings", 0, []string{"veth3", at[0], stray.mac.String(), at[1]}))
		send(t, b.ports[2], clientEnd, "eth0", arp([6]byte(stray.mac), at[1]))
	}
	b.eventually("what is bound on VLAN 12 passes there", func() bool { return b.decided("own-arp") > before })
	if n := b.decided("own-arp") - before; n != 1 {
		t.Errorf("on VLAN 12, %d of an address bound there and one bound on VLAN 11 pass", n)
	}
}

// TestTaggedAndNot: an interface with clients with and without a tag relays each message once.
func TestTaggedAndNot(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	labtest.Address(t, s.segments[0], agentEnd, "10.2.0.1/16")
	stub(t, s.up)
	s.relay(s.config("interfaces: [{names: [seg1]}, {names: [seg1], vlan: 11, address: 10.2.0.1}]"))
	c := newClient(t, s.segments[0])
	checkBinding(s, c, c.lease())
	tagged(t, s.segments[0], clientEnd, 11)
	other := newClient(t, s.segments[0])
	if ack := other.lease(); ack.YourIPAddr.To4()[1] != 2 {
		t.Errorf("with a tag: %s", ack.Summary())
	}
	for _, typ := range []string{"discover", "request"} {
		if n := s.count("seg1", typ); n != 2 {
			t.Errorf("2 messages of type %s were sent, %d relayed", typ, n)
		}
	}
	if n := s.count("seg1", "vlan-not-configured"); n != 0 {
		t.Errorf("%d of another VLAN", n)
	}
}
