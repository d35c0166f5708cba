package evasions

import (
	"fmt"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/frame"
)

// beyondCases are what was found since the tables were written.
func beyondCases(h Host, p roles) (cases []Case) {
	for _, f := range []func(Host, roles) []Case{linkTricks, wrappers, ipTricks} {
		cases = append(cases, f(h, p)...)
	}
	return cases
}

// linkTricks: ways to name a protocol that a receiver may follow.
func linkTricks(h Host, p roles) []Case {
	onARP := row{table: TableBeyond, name: "LLC and tags", policy: p.node}
	onDHCP := row{table: TableBeyond, name: "LLC and tags", policy: p.dhcpHost}
	honestARP := by("announce", announcement(h).broadcast())
	add := func(name string, wrap func(link) link) {
		onARP.add(name+": ARP", by("no-false-announcement", wrap(poison(h, arpReply).link()).frame(broadcast, h.MAC)), honestARP)
		onARP.add(name+": honest ARP", by("no-network-in-llc", wrap(announcement(h).link()).frame(broadcast, h.MAC)), honestARP)
		onDHCP.add(name+": DHCP", by("no-server-message", wrap(rogueIP(h).link()).frame(broadcast, h.MAC)), honestDiscover(h))
	}
	snap := func(dsap, ssap byte, control ...byte) func(link) link {
		return func(l link) link {
			l = cat([]byte{dsap, ssap}, control, []byte{0, 0, 0}, l)
			return cat(be16(len(l)), l)
		}
	}
	add("tag behind SNAP", func(l link) link { return l.tag(tpidQ, VLAN).snap(ouiEtherType) })
	add("tag behind 802.1H", func(l link) link { return l.tag(tpidQ, VLAN).snap(oui8021H) })
	add("tag, SNAP, tag", func(l link) link { return l.tag(tpidQ, VLAN).snap(ouiEtherType).tag(tpidQ, VLAN) })
	add("802.1ad tag behind SNAP", func(l link) link { return l.tag(tpidAD, VLAN).snap(ouiEtherType) })
	add("DSAP of a group", snap(sapSNAP|1, sapSNAP, controlUI))
	add("SSAP of a response", snap(sapSNAP, sapSNAP|1, controlUI))
	add("both", snap(sapSNAP|1, sapSNAP|1, controlUI))
	add("poll bit", snap(sapSNAP, sapSNAP, controlUI|0x10))
	add("information frame", snap(sapSNAP, sapSNAP, 0, 0))
	add("XID", snap(sapSNAP, sapSNAP, 0xaf))
	ip := rogueIP(h).bytes()
	for _, sap := range []byte{sapIP, sapIP | 1} {
		onDHCP.add(fmt.Sprintf("IPv4 at SAP %#02x", sap), by("no-server-message", llc(sap, sapIP, controlUI, ip).frame(broadcast, h.MAC)), honestDiscover(h))
	}
	return append(onARP.cases, onDHCP.cases...)
}

// wrappers: headers whose payload the language does not read. Nothing but a policy
// that drops by default refuses them.
func wrappers(h Host, p roles) []Case {
	r := row{table: TableBeyond, name: "headers that are not read", policy: p.node}
	honest := by("announce", announcement(h).broadcast())
	forged := poison(h, arpReply).link()
	jumbo := []byte{0x88, 0x70, sapSNAP, sapSNAP, controlUI, 0, 0, 0}
	r.add("LLC behind an EtherType (0x8870)", by("no-false-announcement", link(cat(jumbo, forged)).frame(broadcast, h.MAC)), honest)
	r.add("the same twice", malformed(filter.FrameCause(frame.CauseNestedLength), link(cat(jumbo, jumbo, forged)).frame(broadcast, h.MAC)), honest)
	for _, w := range []struct {
		name   string
		header []byte // from its EtherType on; an EtherType follows
	}{
		{"redundancy tag (802.1CB)", []byte{0xf1, 0xc1, 0, 0, 0, 1}},
		{"HSR", []byte{0x89, 0x2f, 0, 34, 0, 1}},
		{"Cisco metadata", []byte{0x89, 0x09, 1, 1, 0, 1, 0, 2}},
		{"E-tag (802.1BR)", []byte{0x89, 0x3f, 0, 0, 0, 1, 0, 0}},
		{"I-tag (802.1ah)", cat([]byte{0x88, 0xe7, 0, 0, 0, 1}, broadcast[:], h.MAC[:])},
		{"SNAP of another OUI", cat(be16(8+28), []byte{sapSNAP, sapSNAP, controlUI, 0, 0, 0x0c})},
	} {
		r.add(w.name, byDefault(link(cat(w.header, forged)).frame(broadcast, h.MAC)), honest)
	}
	return r.cases
}

// ipTricks: IPsec's header stands in front of UDP.
func ipTricks(h Host, p roles) []Case {
	r := row{table: TableBeyond, name: "authentication header", policy: p.dhcpHost}
	r.add("one", by("no-server-message", rogueIP(h).behindAH().link().frame(broadcast, h.MAC)), honestDiscover(h))
	r.add("two", by("no-server-message", rogueIP(h).behindAH().behindAH().link().frame(broadcast, h.MAC)), honestDiscover(h))
	far := rogueIP(h).behindAH()
	far.options = make([]byte, 40)
	r.add("one, and IHL 15", by("no-server-message", far.link().frame(broadcast, h.MAC)), honestDiscover(h))
	return r.cases
}
