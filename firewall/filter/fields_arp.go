package filter

var arpFields = []Field{
	layerField(LayerARP, "the ARP or RARP packet, without padding"),
	uintAt("arp.hw.type", LayerARP, 0, 2, "hardware type (ar$hrd), 1 for Ethernet"),
	uintAt("arp.proto.type", LayerARP, 2, 2, "protocol type (ar$pro), 0x0800 for IPv4"),
	uintAt("arp.hw.size", LayerARP, 4, 1, "hardware address length (ar$hln), 6 for Ethernet"),
	uintAt("arp.proto.size", LayerARP, 5, 1, "protocol address length (ar$pln), 4 for IPv4"),
	uintAt("arp.opcode", LayerARP, 6, 2, "1 request, 2 reply, 3 and 4 RARP, 8 and 9 InARP"),
	arpAddr("arp.src.hw_mac", TypeMAC, 8, "sender hardware address (ar$sha)", func(p *Packet) (Value, bool) {
		hw := p.ARP().SrcHW()
		return Value{Num: wireNumber(hw[:])}, p.ARP().HasHW
	}),
	arpAddr("arp.src.proto_ipv4", TypeIPv4, 14, "sender protocol address (ar$spa)", func(p *Packet) (Value, bool) {
		return Value{Num: uint64(p.ARP().SrcIPv4())}, p.ARP().HasIPv4
	}),
	arpAddr("arp.dst.hw_mac", TypeMAC, 18, "target hardware address (ar$tha)", func(p *Packet) (Value, bool) {
		hw := p.ARP().DstHW()
		return Value{Num: wireNumber(hw[:])}, p.ARP().HasHW
	}),
	arpAddr("arp.dst.proto_ipv4", TypeIPv4, 24, "target protocol address (ar$tpa)", func(p *Packet) (Value, bool) {
		return Value{Num: uint64(p.ARP().DstIPv4())}, p.ARP().HasIPv4 && p.ARP().Opcode() != opDRARPError
	}),
	arpFlag("arp.isgratuitous", "request or reply whose sender and target protocol addresses are the same", func(p *Packet) bool {
		return p.ARP().Gratuitous()
	}),
	arpFlag("arp.isprobe", "request with sender protocol and target hardware address all zero (RFC 5227)", func(p *Packet) bool {
		return p.ARP().Probe()
	}),
	arpFlag("arp.isannouncement", "gratuitous request with target hardware address all zero (RFC 5227)", func(p *Packet) bool {
		return p.ARP().Announcement()
	}),
	malformedFlag("arp.malformed", LayerARP, "the ARP packet is malformed"),
}

// opDRARPError carries an error number in place of the target address (RFC 1931).
const opDRARPError = 7

// arpAddr is an address. At is its place where the sizes are 6 and 4; else the
// sizes say where it is, and a size that is not its own that it is absent.
func arpAddr(name string, t Type, off int, doc string, get func(*Packet) (Value, bool)) Field {
	f := placed(name, t, doc, Place{Layer: LayerARP, Off: off, Len: map[Type]int{TypeMAC: 6, TypeIPv4: 4}[t]})
	f.get = func(p *Packet, i int) (Value, bool) {
		if i != 0 || !p.HasARP {
			return Value{}, false
		}
		return get(p)
	}
	return f
}

// arpFlag is a flag that occurs only where it is true, as Wireshark has it.
func arpFlag(name, doc string, get func(*Packet) bool) Field {
	return computed(name, TypeBool, 0, "arp, from opcode and addresses", doc, func(p *Packet) (Value, bool) {
		ok := p.HasARP && get(p)
		return Value{Num: 1}, ok
	})
}
