package evasions

import (
	"fmt"
	"net/netip"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// rogue is an OFFER of the host's own making, in the name of the real server.
func rogue(h Host) message {
	return newReply(h.Guest, h.OtherServer, offer, address(optServerID, h.Server), address(optRouter, h.IP),
		option(optLeaseTime, 0, 0, 14, 16))
}

// rogueIP is the packet with it, to everybody on the link.
func rogueIP(h Host) ipv4 { return asReply(rogue(h).bytes()).in(h.Server, allAddresses) }

// honestDiscover is the host's own DISCOVER.
func honestDiscover(h Host) Frame {
	return by("own-dhcp", asRequest(newRequest(h.MAC, discover, clientID(h.MAC)).bytes()).toAll(h.MAC))
}

func encapsulationCases(h Host, p roles) (cases []Case) {
	for _, f := range []func(Host, roles) []Case{tags, llcs, ipOptions, fragments, lengths, checksums} {
		cases = append(cases, f(h, p)...)
	}
	return cases
}

// stacks are the ways to tag that the policies do not allow.
var stacks = []struct {
	name string
	tag  func(link) link
}{
	{"priority tag", func(l link) link { return l.tag(tpidQ, 0) }},
	{"802.1Q in 802.1Q", func(l link) link { return l.tag(tpidQ, VLAN).tag(tpidQ, VLAN) }},
	{"802.1ad", func(l link) link { return l.tag(tpidAD, VLAN) }},
	{"802.1Q in 802.1ad", func(l link) link { return l.tag(tpidQ, VLAN).tag(tpidAD, VLAN) }},
	{"0x9100", func(l link) link { return l.tag(tpid9100, VLAN) }},
	{"802.1Q in 0x9100", func(l link) link { return l.tag(tpidQ, VLAN).tag(tpid9100, VLAN) }},
	{"priority tag in an allowed one", func(l link) link { return l.tag(tpidQ, 0).tag(tpidQ, VLAN) }},
	{"another VLAN", func(l link) link { return l.tag(tpidQ, VLAN+1) }},
	{"six deep", func(l link) link { return deep(l, 6) }},
	{"eight deep", func(l link) link { return deep(l, frame.MaxTags) }},
}

func deep(l link, n int) link {
	for range n {
		l = l.tag(tpidQ, VLAN)
	}
	return l
}

// tags: what is forged is found behind every stack, and what is honest must not
// stand behind one that is not allowed.
func tags(h Host, p roles) []Case {
	onARP := row{table: TableEncapsulation, name: "VLAN tags", policy: p.node}
	onDHCP := row{table: TableEncapsulation, name: "VLAN tags", policy: p.dhcpHost}
	announce, discovery := announcement(h).link(), link(honestDiscover(h).Bytes[12:])
	honestARP := by("announce", announce.tag(tpidQ, VLAN).frame(broadcast, h.MAC))
	honestDHCP := by("own-dhcp", discovery.tag(tpidQ, 5<<13|VLAN).frame(broadcast, h.MAC)) // with a priority
	for _, s := range stacks {
		onARP.add(s.name+": ARP", by("no-false-announcement", s.tag(poison(h, arpReply).link()).frame(broadcast, h.MAC)), honestARP)
		onARP.add(s.name+": honest ARP", by("no-stray-tag", s.tag(announce).frame(broadcast, h.MAC)), honestARP)
		onDHCP.add(s.name+": DHCP", by("no-server-message", s.tag(rogueIP(h).link()).frame(broadcast, h.MAC)), honestDHCP)
		onDHCP.add(s.name+": honest DHCP", by("no-stray-tag", s.tag(discovery).frame(broadcast, h.MAC)), honestDHCP)
	}
	onARP.add("the allowed one: ARP", by("no-false-announcement", poison(h, arpReply).link().tag(tpidQ, VLAN).frame(broadcast, h.MAC)), honestARP)
	onARP.add("nine deep", malformed(filter.FrameCause(frame.CauseTooManyTags), deep(announce, 9).frame(broadcast, h.MAC)), honestARP)
	onARP.add("cut in the tag", malformed(filter.FrameCause(frame.CauseShortTag), announce.tag(tpidQ, VLAN).short(broadcast, h.MAC)[:17]), honestARP)
	return append(onARP.cases, onDHCP.cases...)
}

// llcs: an 802.3 length in the EtherType's place.
func llcs(h Host, p roles) []Case {
	onARP := row{table: TableEncapsulation, name: "802.3 and LLC/SNAP", policy: p.node}
	onDHCP := row{table: TableEncapsulation, name: "802.3 and LLC/SNAP", policy: p.dhcpHost}
	stp := by("spanning-tree", llc(sapSTP, sapSTP, controlUI, bpdu(h)).frame(MAC{0x01, 0x80, 0xc2}, h.MAC))
	lldp := by("lldp", ethertype(typeLLDP, lldpdu(h)).frame(MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}, h.MAC))
	forged, honest := poison(h, arpReply).link(), announcement(h).link()
	for _, oui := range []int{ouiEtherType, oui8021H} {
		name := fmt.Sprintf("OUI %06x", oui)
		onARP.add(name+": ARP", by("no-false-announcement", forged.snap(oui).frame(broadcast, h.MAC)), stp)
		onARP.add(name+": honest ARP", by("no-network-in-llc", honest.snap(oui).frame(broadcast, h.MAC)), lldp)
		onARP.add(name+": tagged", by("no-false-announcement", forged.snap(oui).tag(tpidQ, VLAN).frame(broadcast, h.MAC)), stp)
		onDHCP.add(name+": DHCP", by("no-server-message", rogueIP(h).link().snap(oui).frame(broadcast, h.MAC)), honestDiscover(h))
		onDHCP.add(name+": honest DHCP", by("no-network-in-llc", link(honestDiscover(h).Bytes[12:]).snap(oui).frame(broadcast, h.MAC)), honestDiscover(h))
	}
	bad := func(name string, c filter.Cause, l link) {
		onARP.add(name, malformed(c, l.frame(broadcast, h.MAC)), stp)
	}
	for _, n := range []int{1501, 1518, 1535} {
		bad(fmt.Sprintf("length %d", n), filter.FrameCause(frame.CauseBadLength), forged.snap(ouiEtherType).length(n))
	}
	bad("length beyond the frame", filter.FrameCause(frame.CauseBadLength), forged.snap(ouiEtherType).length(1500))
	bad("length ends in LLC", filter.FrameCause(frame.CauseShortLLC), forged.snap(ouiEtherType).length(2))
	bad("length ends in SNAP", filter.FrameCause(frame.CauseShortLLC), forged.snap(ouiEtherType).length(7))
	bad("length ends before ARP", arpShort, forged.snap(ouiEtherType).length(8))
	bad("length behind SNAP and a tag", filter.FrameCause(frame.CauseNestedLength), forged.snap(ouiEtherType).tag(tpidQ, VLAN).snap(ouiEtherType))
	onARP.add("length behind SNAP", byDefault(forged.snap(ouiEtherType).snap(ouiEtherType).frame(broadcast, h.MAC)), stp)
	bad("length 0", filter.FrameCause(frame.CauseBadLength), forged.snap(ouiEtherType).length(0))
	onARP.add("length 0, IPv4's access point", by("no-type-zero",
		llc(sapIP, sapIP, controlUI, rogueIP(h).bytes()).length(0).frame(broadcast, h.MAC)), lldp)
	bad("SNAP's access point as the destination alone", filter.FrameCause(frame.CauseHalfSNAP),
		llc(sapSNAP, 0, controlUI, cat([]byte{0, 0, 0, 8, 6}, poison(h, arpReply).bytes())))
	return append(onARP.cases, onDHCP.cases...)
}

// bpdu is a configuration BPDU (802.1D) of a bridge that takes itself for the root.
func bpdu(h Host) []byte {
	id := cat([]byte{0x80, 0}, h.MAC[:])
	return cat([]byte{0, 0, 0, 0, 0}, id, make([]byte, 4), id, []byte{0x80, 1}, []byte{0, 0, 20, 0, 2, 0, 15, 0})
}

// lldpdu is the shortest LLDP message there can be.
func lldpdu(h Host) []byte {
	return cat([]byte{0x02, 7, 4}, h.MAC[:], []byte{0x04, 5, 5}, []byte("eth0"), []byte{0x06, 2, 0, 120}, []byte{0, 0})
}

func ipOptions(h Host, p roles) []Case {
	r := row{table: TableEncapsulation, name: "IPv4 options", policy: p.dhcpHost}
	// IGMPv2's report and leave carry Router Alert (RFC 2236).
	group := netip.AddrFrom4([4]byte{224, 0, 0, 251})
	report := cat([]byte{0x16, 0, 0, 0}, group.AsSlice())
	sumRight.put(report, 2, internet(report))
	igmp := ipv4{src: h.IP, dst: group, proto: protoIGMP, options: []byte{0x94, 4, 0, 0}, payload: report}
	honest := by("own-igmp", igmp.link().frame(MAC{0x01, 0, 0x5e, 0, 0, 0xfb}, h.MAC))
	for ihl := 6; ihl <= 15; ihl++ {
		nops := make([]byte, 4*ihl-20)
		for i := range nops {
			nops[i] = 1
		}
		ip := rogueIP(h)
		ip.options = nops
		r.add(fmt.Sprintf("IHL %d", ihl), by("no-server-message", ip.link().frame(broadcast, h.MAC)), honest)
	}
	ip := rogueIP(h)
	ip.options = []byte{0x83, 7, 4, 0, 0, 0, 0, 0} // loose source route
	r.add("source route", by("no-server-message", ip.link().frame(broadcast, h.MAC)), honest)
	own := asRequest(newRequest(h.MAC, discover).bytes()).in(anyAddress, allAddresses)
	own.options = []byte{1, 1, 1, 0}
	r.add("on an honest message", by("no-ip-options", own.link().frame(broadcast, h.MAC)), honest)
	for _, ihl := range []byte{0, 4} {
		b := rogueIP(h).bytes()
		b[0] = 0x40 | ihl
		r.add(fmt.Sprintf("IHL %d", ihl), malformed(filter.FrameCause(frame.CauseIPv4HdrLen), ethertype(typeIPv4, b).frame(broadcast, h.MAC)), honest)
	}
	return r.cases
}

func fragments(h Host, p roles) []Case {
	r := row{table: TableEncapsulation, name: "fragments", policy: p.dhcpHost}
	large := udp{srcPort: 5004, dstPort: 5004, payload: make([]byte, 1472)}.in(h.IP, h.PeerIP)
	large.flags = ipDF
	honest := by("own-traffic", large.link().frame(h.PeerMAC, h.MAC))
	ip := rogueIP(h)
	add := func(name string, f func([]byte) Frame, part ipv4) {
		r.add(name, f(part.link().frame(broadcast, h.MAC)), honest)
	}
	first := func(b []byte) Frame { return malformed(filter.CauseDHCPFragment, b) }
	later := func(b []byte) Frame { return by("no-fragment", b) }
	whole := len(ip.payload)
	add("options in the second: first", first, ip.fragment(0, 248))
	add("options in the second: second", later, ip.fragment(248, whole-248))
	add("tiny: first", first, ip.fragment(0, 8))
	add("tiny: second", later, ip.fragment(8, whole-8))
	short := func(b []byte) Frame { return malformed(filter.FrameCause(frame.CauseShortUDP), b) }
	ports := ip
	ports.payload, ports.flags = ip.payload[:4], ipMF
	add("ports alone", short, ports)
	// The first lie is about the ports, the second puts them right.
	decoy := udp{srcPort: 5004, dstPort: 5004, payload: ip.payload[8:]}.in(h.IP, allAddresses)
	add("overlapping: decoy", later, decoy.fragment(0, 248))
	add("overlapping: ports again", first, ip.fragment(0, 8))
	add("overlapping: options again", later, ip.fragment(240, whole-240))
	// An honest message may not come in fragments either: nobody sees its options.
	discovery := asRequest(newRequest(h.MAC, discover).bytes()).in(anyAddress, allAddresses)
	add("honest message: first", first, discovery.fragment(0, 256))
	add("honest message: second", later, discovery.fragment(256, len(discovery.payload)-256))
	return r.cases
}

// arpShort and dhcpShort are causes that several rows have in common.
var (
	arpShort  = filter.ARPCause(arp.CauseShort)
	dhcpShort = filter.DHCPCause(dhcp.CauseShort)
	pastEnd   = filter.DHCPCause(dhcp.CausePastEnd)
	udpLen    = filter.FrameCause(frame.CauseUDPLen)
)
