package filter

var ipFields = []Field{
	layerField(LayerIPv4, "the IPv4 header with its options"),
	computed("ip.version", TypeUint, 4, "ip or ipv6, offset 0, 1 byte, mask 0xf0", "version, of IPv6 as well", func(p *Packet) (Value, bool) {
		for _, l := range [...]Layer{LayerIPv4, LayerIPv6} {
			if b := p.Bytes(l); len(b) > 0 {
				return Value{Num: uint64(b[0] >> 4)}, true
			}
		}
		return Value{}, false
	}),
	computed("ip.hdr_len", TypeUint, 8, "ip, offset 0, 1 byte, mask 0x0f, times 4", "header length in bytes", func(p *Packet) (Value, bool) {
		b := p.Bytes(LayerIPv4)
		if len(b) == 0 || b[0]>>4 != 4 {
			return Value{}, false
		}
		return Value{Num: uint64(b[0]&0x0f) * 4}, true
	}),
	bitsAt("ip.dsfield.dscp", LayerIPv4, 1, 1, 2, 0x3f, "differentiated services code point"),
	uintAt("ip.len", LayerIPv4, 2, 2, "total length in bytes"),
	uintAt("ip.id", LayerIPv4, 4, 2, "identification"),
	flagAt("ip.flags.mf", LayerIPv4, 6, 2, 13, "more fragments"),
	bitsAt("ip.frag_offset", LayerIPv4, 6, 2, 0, 0x1fff, "fragment offset in units of 8 bytes"),
	uintAt("ip.ttl", LayerIPv4, 8, 1, "time to live"),
	uintAt("ip.proto", LayerIPv4, 9, 1, "protocol"),
	placed("ip.src", TypeIPv4, "source", Place{Layer: LayerIPv4, Off: 12, Len: 4}),
	placed("ip.dst", TypeIPv4, "destination", Place{Layer: LayerIPv4, Off: 16, Len: 4}),
	placed("ip.addr", TypeIPv4, "source or destination", Place{Layer: LayerIPv4, Off: 12, Len: 4}, Place{Layer: LayerIPv4, Off: 16, Len: 4}),
	malformedFlag("ip.malformed", LayerIPv4, "the IPv4 header is malformed"),

	layerField(LayerIPv6, "the IPv6 header with its extension headers"),
	placed("ipv6.src", TypeIPv6, "source", Place{Layer: LayerIPv6, Off: 8, Len: 16}),
	placed("ipv6.dst", TypeIPv6, "destination", Place{Layer: LayerIPv6, Off: 24, Len: 16}),
	placed("ipv6.addr", TypeIPv6, "source or destination", Place{Layer: LayerIPv6, Off: 8, Len: 16}, Place{Layer: LayerIPv6, Off: 24, Len: 16}),
	uintAt("ipv6.nxt", LayerIPv6, 6, 1, "next header, which may be an extension header"),
	uintAt("ipv6.hlim", LayerIPv6, 7, 1, "hop limit"),
	malformedFlag("ipv6.malformed", LayerIPv6, "the IPv6 header or an extension header is malformed"),

	layerField(LayerUDP, "the UDP header, 8 bytes"),
	uintAt("udp.srcport", LayerUDP, 0, 2, "source port"),
	uintAt("udp.dstport", LayerUDP, 2, 2, "destination port"),
	placed("udp.port", TypeUint, "source or destination port", Place{Layer: LayerUDP, Len: 2}, Place{Layer: LayerUDP, Off: 2, Len: 2}),
	uintAt("udp.length", LayerUDP, 4, 2, "length in bytes, the header included"),
	malformedFlag("udp.malformed", LayerUDP, "the UDP header is malformed"),
}

var avbFields = []Field{
	layerField(LayerPTP, "the PTP message"),
	ptpField("ptp.v2.messagetype", 4, 0, 0x0f, "message type of PTP version 2: 0 Sync, 1 Delay_Req, 8 Follow_Up, 0xb Announce"),
	ptpField("ptp.v2.domainnumber", 8, 4, 0xff, "domain of PTP version 2"),
	layerField(LayerIEEE1722, "the IEEE 1722 (AVTP) PDU"),
	computed("ieee1722.subtype", TypeUint, 8, "ieee1722, offset 0, 1 byte; over UDP offset 4, behind the sequence number", "AVTP subtype", func(p *Packet) (Value, bool) {
		b, off := p.Bytes(LayerIEEE1722), 0
		if p.HasUDP {
			off = 4
		}
		return Value{Num: uint64(byteAt(b, off))}, len(b) > off
	}),
}

// ptpField is a byte of a message of version 2, which declares its own length.
// Over Ethernet every message is taken for one.
func ptpField(name string, width, off int, mask uint64, doc string) Field {
	f := bitsAt(name, LayerPTP, off, 1, 0, mask, doc)
	f.Where += ", not of version 1"
	at := f.At[0]
	f.At, f.Bits = nil, width
	f.get = func(p *Packet, i int) (Value, bool) {
		b := p.Bytes(LayerPTP)
		if i != 0 || b == nil || p.HasUDP && b[1]&0x0f != 2 {
			return Value{}, false
		}
		// The length is read after the first byte.
		if at.Off > 0 && wireNumber(b[2:4]) <= uint64(at.Off) {
			return Value{}, false
		}
		return Value{Num: uint64(b[at.Off]) & at.Mask}, true
	}
	return f
}

// malformedFlag occurs, and is true, where the layer is malformed.
func malformedFlag(name string, l Layer, doc string) Field {
	return computed(name, TypeBool, 0, "from the layer's lengths", doc, func(p *Packet) (Value, bool) {
		return Value{Num: 1}, p.bad&(1<<l) != 0
	})
}

// manyOf is a field with several occurrences that take code to find.
func manyOf(name string, t Type, width int, where, doc string, get func(*Packet, int) (Value, bool)) Field {
	return Field{Name: name, Type: t, Bits: width, Many: true, Engines: Everywhere, Where: where, Doc: doc, get: get}
}
