package filter

import "github.com/postern-fw/postern/proto/frame"

var linkFields = []Field{
	layerField(LayerFrame, "the whole frame"),
	computed("frame.len", TypeUint, 32, "beside the bytes", "bytes on the wire, without the frame check sequence", func(p *Packet) (Value, bool) {
		return Value{Num: uint64(max(len(p.b), p.Meta().WireLen))}, true
	}),
	layerField(LayerEth, "the Ethernet header, 14 bytes"),
	placed("eth.dst", TypeMAC, "destination", Place{Layer: LayerEth, Len: 6}),
	placed("eth.src", TypeMAC, "source", Place{Layer: LayerEth, Off: 6, Len: 6}),
	placed("eth.addr", TypeMAC, "destination or source", Place{Layer: LayerEth, Len: 6}, Place{Layer: LayerEth, Off: 6, Len: 6}),
	computed("eth.type", TypeUint, 16, "eth, offset 12, 2 bytes, if 0 or at least 1536", "EtherType of the header: a tag's TPID where there are tags", func(p *Packet) (Value, bool) {
		n, ok := typeOrLen(p)
		return Value{Num: n}, ok && (n == 0 || n >= 1536)
	}),
	computed("eth.len", TypeUint, 16, "eth, offset 12, 2 bytes, if 1 to 1500", "802.3 length", func(p *Packet) (Value, bool) {
		n, ok := typeOrLen(p)
		return Value{Num: n}, ok && n >= 1 && n <= 1500
	}),
	flagAt("eth.dst.ig", LayerEth, 0, 3, 16, "destination is a group: multicast or broadcast"),
	flagAt("eth.dst.lg", LayerEth, 0, 3, 17, "destination is locally administered"),
	flagAt("eth.src.ig", LayerEth, 6, 3, 16, "source is a group, which none should be"),
	flagAt("eth.src.lg", LayerEth, 6, 3, 17, "source is locally administered"),
	placed("eth.ig", TypeBool, "destination or source is a group", Place{LayerEth, 0, 3, 16, 1}, Place{LayerEth, 6, 3, 16, 1}),
	placed("eth.lg", TypeBool, "destination or source is locally administered", Place{LayerEth, 0, 3, 17, 1}, Place{LayerEth, 6, 3, 17, 1}),

	layerField(LayerVLAN, "each VLAN tag: its TCI and the type behind it"),
	bitsAt("vlan.id", LayerVLAN, 0, 2, 0, 0x0fff, "VLAN identifier of each tag, the outermost first"),
	bitsAt("vlan.priority", LayerVLAN, 0, 2, 13, 7, "priority code point (PCP) of each tag"),
	flagAt("vlan.dei", LayerVLAN, 0, 2, 12, "drop eligible indicator of each tag"),
	manyOf("vlan.etype", TypeUint, 16, "vlan, offset 2, 2 bytes, if above 1500", "type behind each tag, which for all but the last is the next one's TPID", getVLANType),

	layerField(LayerLLC, "the LLC header, and SNAP behind it"),
	uintAt("llc.dsap", LayerLLC, 0, 1, "destination service access point"),
	uintAt("llc.ssap", LayerLLC, 1, 1, "source service access point"),
	computed("llc.oui", TypeUint, 24, "llc, the first 3 bytes of SNAP", "organization code of SNAP", func(p *Packet) (Value, bool) {
		return Value{Num: uint64(p.Frame().OUI)}, p.Frame().HasSNAP
	}),
	computed("llc.type", TypeUint, 16, "llc, the last 2 bytes of SNAP, if the OUI is 0 or 0x0000f8", "EtherType in SNAP", func(p *Packet) (Value, bool) {
		return Value{Num: uint64(p.Frame().SNAPType)}, p.Frame().HasSNAP && (p.Frame().OUI == 0 || p.Frame().OUI == 0x0000f8)
	}),
}

// typeOrLen is the number behind the addresses.
func typeOrLen(p *Packet) (uint64, bool) {
	b := p.Bytes(LayerEth)
	if len(b) < frame.HeaderLen {
		return 0, false
	}
	return uint64(b[12])<<8 | uint64(b[13]), true
}

func getVLANType(p *Packet, i int) (Value, bool) {
	tags := p.Frame().Tags()
	for n := range tags {
		if len(p.Frame().TagBytes(n)) < 4 || tags[n].Type <= 1500 {
			continue
		}
		if i == 0 {
			return Value{Num: uint64(tags[n].Type)}, true
		}
		i--
	}
	return Value{}, false
}
