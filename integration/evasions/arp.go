package evasions

import (
	"fmt"
	"net/netip"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/arp"
)

// announcement is the host's own, RFC 5227's: a request for its own address.
func announcement(h Host) arpPacket { return newARP(arpRequest, h.MAC, h.IP, MAC{}, h.IP) }

// poison tells everybody that the victim's address is here.
func poison(h Host, opcode int) arpPacket {
	return newARP(opcode, h.MAC, h.PeerIP, broadcast, h.PeerIP)
}

// own is the host's reply for an address of its own.
func own(h Host, a netip.Addr) []byte {
	return newARP(arpReply, h.MAC, a, h.PeerMAC, h.PeerIP).link().frame(h.PeerMAC, h.MAC)
}

func arpCases(h Host, p roles) (cases []Case) {
	for _, f := range []func(Host, *row){
		gratuitous, borrowedMAC, hostileProbe, oldOwner, proxyARP, oddSizes, rarp, oddOpcodes,
	} {
		r := row{table: TableARP, policy: p.node}
		f(h, &r)
		cases = append(cases, r.cases...)
	}
	return cases
}

func gratuitous(h Host, r *row) {
	r.name = "gratuitous request"
	honest := by("announce", announcement(h).broadcast())
	for _, target := range []MAC{{}, broadcast, h.MAC} {
		a := newARP(arpRequest, h.MAC, h.PeerIP, target, h.PeerIP)
		r.add("target "+target.String(), by("no-false-announcement", a.broadcast()), honest)
	}
	r.add("reply", by("no-false-announcement", poison(h, arpReply).broadcast()), by("reply", own(h, h.IP)))
	// Any request updates the sender's entry at who is asked (RFC 826).
	ask := newARP(arpRequest, h.MAC, h.PeerIP, MAC{}, h.Server)
	r.add("question", by("no-foreign-sender", ask.broadcast()),
		by("ask", newARP(arpRequest, h.MAC, h.IP, MAC{}, h.Server).broadcast()))
}

func borrowedMAC(h Host, r *row) {
	r.name = "sender hardware address is not eth.src"
	virtual := newARP(arpRequest, h.VirtualMAC, h.VIP, MAC{}, h.VIP)
	physical := by("announce", virtual.link().frame(broadcast, h.MAC))
	r.add("own address, the peer's MAC",
		by("no-borrowed-mac", newARP(arpRequest, h.PeerMAC, h.IP, MAC{}, h.IP).link().frame(broadcast, h.MAC)), physical)
	r.add("a reply with a group address",
		by("no-borrowed-mac", newARP(arpReply, broadcast, h.IP, h.PeerMAC, h.PeerIP).link().frame(h.PeerMAC, h.MAC)),
		by("announce", virtual.broadcast()))
	r.add("from the peer's own MAC",
		by("no-spoofed-source", newARP(arpRequest, h.PeerMAC, h.IP, MAC{}, h.IP).broadcast()), physical)
}

func hostileProbe(h Host, r *row) {
	r.name = "probe for a victim's address"
	for _, target := range []MAC{{}, broadcast, h.PeerMAC} { // RFC 5227 has the first
		probe := newARP(arpRequest, h.MAC, anyAddress, target, h.PeerIP)
		honest := by("probe", newARP(arpRequest, h.MAC, anyAddress, MAC{}, h.VIP).broadcast())
		r.add("target "+target.String(), by("no-hostile-probe", probe.broadcast()), honest)
	}
	r.add("unicast",
		by("no-hostile-probe", newARP(arpRequest, h.MAC, anyAddress, MAC{}, h.PeerIP).link().frame(h.PeerMAC, h.MAC)),
		by("probe", newARP(arpRequest, h.MAC, anyAddress, MAC{}, h.IP).broadcast()))
}

func oldOwner(h Host, r *row) {
	r.name = "reply from the old owner"
	r.add("unicast", by("no-foreign-reply", own(h, h.Lost)), by("reply", own(h, h.VIP)))
	r.add("broadcast",
		by("no-foreign-reply", newARP(arpReply, h.MAC, h.Lost, h.PeerMAC, h.PeerIP).broadcast()), by("reply", own(h, h.VIP)))
}

func proxyARP(h Host, r *row) {
	r.name = "proxy ARP"
	asked := []netip.Addr{h.OtherServer, h.Server, h.OtherRelay, h.Link.Masked().Addr(), allAddresses,
		netip.AddrFrom4([4]byte{8, 8, 8, 8})}
	for _, a := range asked {
		r.add(a.String(), by("no-foreign-reply", own(h, a)), by("reply", own(h, h.IP)))
	}
}

func oddSizes(h Host, r *row) {
	r.name = "sizes and types"
	padded := by("announce", announcement(h).broadcast())
	bare := by("announce", announcement(h).link().short(broadcast, h.MAC))
	bad := func(name string, c arp.Cause, a arpPacket) {
		r.add(name, malformed(filter.ARPCause(c), a.broadcast()), padded)
	}
	for _, n := range []byte{0, 5, 20, 255} {
		a := poison(h, arpReply)
		a.hwSize = n
		bad(fmt.Sprintf("hw.size %d", n), arp.CauseHWSize, a)
		a = poison(h, arpReply)
		a.protoSize = n
		bad(fmt.Sprintf("proto.size %d", n), arp.CauseProtoSize, a)
	}
	for _, n := range []int{0, 6, 32, 0xffff} { // Linux takes 6, IEEE 802, for Ethernet
		a := poison(h, arpReply)
		a.hwType = n
		bad(fmt.Sprintf("hw.type %d", n), arp.CauseHWType, a)
	}
	a := poison(h, arpReply)
	a.protoType = 0x86dd
	bad("proto.type IPv6", arp.CauseProtoType, a)
	for _, n := range []int{7, 11, 17, 27} {
		whole := poison(h, arpReply).link().short(broadcast, h.MAC)
		r.add(fmt.Sprintf("cut after %d bytes", n), malformed(filter.ARPCause(arp.CauseShort), whole[:14+n]), bare)
	}
}

func rarp(h Host, r *row) {
	r.name = "RARP"
	announce := func(opcode int, of MAC) link {
		return ethertype(typeRARP, newARP(opcode, of, anyAddress, of, anyAddress).bytes())
	}
	// The very bytes of QEMU's announce_self_create.
	honest := by("guest-moved", announce(rarpRequest, h.Guest).frame(broadcast, h.Guest))
	bad := func(name string, src MAC, l link) { r.add(name, by("no-rarp", l.frame(broadcast, src)), honest) }
	bad("the peer's MAC", h.PeerMAC, announce(rarpRequest, h.PeerMAC))
	bad("the peer's MAC inside", h.MAC, announce(rarpRequest, h.PeerMAC))
	bad("the guest's MAC outside", h.Guest, announce(rarpRequest, h.PeerMAC))
	bad("reply", h.Guest, announce(rarpReply, h.Guest))
	bad("with addresses", h.Guest,
		ethertype(typeRARP, newARP(rarpRequest, h.Guest, h.PeerIP, h.Guest, h.PeerIP).bytes()))
	bad("an ARP reply by RARP's type", h.MAC, ethertype(typeRARP, poison(h, arpReply).bytes()))
	bad("behind a tag", h.Guest, announce(rarpRequest, h.Guest).tag(tpidQ, VLAN))
	bad("behind SNAP", h.Guest, announce(rarpRequest, h.Guest).snap(ouiEtherType))
}

func oddOpcodes(h Host, r *row) {
	r.name = "opcodes"
	odd := []int{0, 0xffff, 0x0100, 0x0200}
	for n := 3; n <= 25; n++ { // 8 and 9 are InARP
		odd = append(odd, n)
	}
	for i, n := range odd {
		a := announcement(h)
		a.opcode = n
		honest := by("announce", announcement(h).broadcast())
		if i%2 == 1 {
			honest = by("reply", own(h, h.IP))
		}
		r.add(fmt.Sprint(n), by("no-odd-opcode", a.broadcast()), honest)
	}
}
