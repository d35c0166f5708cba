package filter

import (
	"encoding/binary"

	"github.com/postern-fw/postern/proto/dhcp"
)

// Number reads a number that a frame has once, or several times but always the same, where that can be told
// quickly: what Field.Value says, in a fraction of the time.
type Number struct {
	field    *Field
	kind     numberKind
	layer    Layer
	shift    uint8  // of the 8 bytes that begin at off
	off, end uint32 // of the field, in its layer
	mask     uint64
}

type numberKind uint8

const (
	asked     numberKind = iota // Field.Value says
	inPlace                     // at its place in its layer
	inARP                       // likewise, in a plain ARP packet
	inDHCP                      // the message type
	ifaceMAC                    // the interface's address
	manyTimes                   // nothing can be told quickly
)

// NewNumber returns a reader of f, a field of a numeric type.
func NewNumber(f *Field) Number {
	n := Number{field: f}
	switch at := f.At; {
	case f.Name == "dhcp.option.dhcp":
		n.kind = inDHCP
	case f.Many:
		n.kind = manyTimes
	case f.Name == "iface.mac":
		n.kind = ifaceMAC
	case len(at) != 1 || at[0].Layer == LayerVLAN:
	default:
		n.kind, n.layer = inPlace, at[0].Layer
		n.off, n.end = uint32(at[0].Off), uint32(at[0].Off+at[0].Len)
		n.shift, n.mask = uint8(64-8*at[0].Len)+at[0].Shift, at[0].Mask
		if f.get != nil {
			n.kind = inARP
		}
	}
	return n
}

// Once reports whether a frame has the number once at the most, as far as the kind of the field
// can tell: Value never gives Several then for a sound frame.
func (n *Number) Once() bool { return n.kind != manyTimes }

// Occurrence is how often a field is there.
type Occurrence uint8

// The occurrences.
const (
	Absent Occurrence = iota
	Single
	Several // perhaps: ask Field.Value
)

// Value is the number, valid if it is Single. It does not allocate.
func (n *Number) Value(p *Packet) (uint64, Occurrence) {
	if n.kind == inPlace || n.kind == inARP && p.plainARP {
		s := p.at(n.layer)
		if p.shown&(1<<n.layer) == 0 || s.off+n.end > s.end {
			return 0, Absent
		}
		at := uint(s.off + n.off)
		if b := p.b; at+8 <= uint(len(b)) {
			return binary.BigEndian.Uint64(b[at:]) >> (n.shift & 63) & n.mask, Single
		}
	}
	return n.ask(p)
}

func (n *Number) ask(p *Packet) (uint64, Occurrence) {
	switch n.kind {
	case manyTimes:
		return 0, Several
	case inDHCP:
		switch m := p.DHCP(); {
		case !p.HasDHCP:
			return 0, Absent
		case m.Malformed != dhcp.CauseNone:
			return 0, Several
		case m.Types > 0:
			return uint64(m.Type), Single
		}
		return 0, Absent
	case ifaceMAC:
		if p.Meta().HasIfaceMAC {
			return wireNumber(p.Meta().IfaceMAC[:]), Single
		}
		return 0, Absent
	}
	if v, ok := n.field.Value(p, 0); ok {
		return v.Num, Single
	}
	return 0, Absent
}
