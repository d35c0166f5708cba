package filter

import (
	"encoding/binary"
	"math/bits"
	"strings"

	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// Kind is a kind of frame whose layers stand at places that are known beforehand, which most of what is sent
// through packet sockets is of. The zero value is any other frame.
type Kind uint8

// The kinds. Frames of one are sound, and have an EtherType and no tags.
const (
	KindOther Kind = iota
	KindARP        // ARP over Ethernet and IPv4, no RARP
	KindDHCP       // DHCP with a hardware address of Ethernet's, in IPv4 without options that is no fragment
	Kinds          // how many there are
)

// Where the layers of plain frames are, in bytes.
const (
	arpAt, arpEnd        = frame.HeaderLen, frame.HeaderLen + 28
	ipv4At, udpAt        = frame.HeaderLen, frame.HeaderLen + 20
	dhcpAt, dhcpFixedEnd = udpAt + 8, udpAt + 8 + 240
)

// layersOf are the layers of a kind, as far as each reaches in any frame of it.
var layersOf = [Kinds][layerCount]span{
	KindARP:  {LayerEth: {0, frame.HeaderLen}, LayerARP: {arpAt, arpEnd}},
	KindDHCP: {LayerEth: {0, frame.HeaderLen}, LayerIPv4: {ipv4At, udpAt}, LayerUDP: {udpAt, dhcpAt}, LayerDHCP: {dhcpAt, dhcpFixedEnd}},
}

// Kind is the frame's.
func (p *Packet) Kind() Kind { return p.kind }

// isPlainARP tells a frame of KindARP, but for a super-frame of such.
func isPlainARP(b []byte) bool {
	// ar$hrd, ar$pro, ar$hln and ar$pln are one number, read as fast as can be.
	return len(b) >= arpEnd && binary.BigEndian.Uint16(b[12:]) == etherARP &&
		binary.LittleEndian.Uint64(b[arpAt:])<<16 == 0x0406_0008_0100_0000 && b[arpAt+7] != opDRARPError
}

// setPlainARP is decodeLayers for a frame of KindARP. What it sets stands together, so that it is few steps.
func (p *Packet) setPlainARP() {
	p.kind, p.HasARP, p.HasIPv4, p.HasIPv6, p.HasUDP, p.HasDHCP, p.plainARP, p.unseen = KindARP, true, false, false, false, false, true, true
	p.Malformed, p.bad, p.shown, p.spare = 0, 0, 1<<LayerFrame|1<<LayerEth|1<<LayerARP, 0
}

// decodePlainDHCP is decodeLayers for a frame of KindDHCP. For any other it reports false, and has set nothing
// that decodeLayers does not set anew.
func (p *Packet) decodePlainDHCP(b []byte) bool {
	end := plainDHCPEnd(b)
	if end == 0 {
		return false
	}
	m := &p.views.dhcp
	if m.Decode(b[dhcpAt:end:end]); m.Malformed != dhcp.CauseNone || !m.HasCookie {
		return false
	}
	p.kind, p.HasARP, p.HasIPv4, p.HasIPv6, p.HasUDP, p.HasDHCP, p.plainARP, p.unseen = KindDHCP, false, true, false, true, true, false, true
	p.Malformed, p.bad, p.shown = 0, 0, 1<<LayerFrame|1<<LayerEth|1<<LayerIPv4|1<<LayerUDP|1<<LayerDHCP
	p.found[LayerEth], p.found[LayerIPv4], p.found[LayerUDP] = span{0, ipv4At}, span{ipv4At, udpAt}, span{udpAt, dhcpAt}
	p.found[LayerDHCP] = span{dhcpAt, uint32(end)}
	return true
}

// plainDHCPEnd is where the UDP payload of a frame that may be of KindDHCP ends, 0 if it cannot be one.
func plainDHCPEnd(b []byte) int {
	if len(b) < dhcpFixedEnd || binary.BigEndian.Uint16(b[12:]) != etherIPv4 {
		return 0
	}
	head := binary.BigEndian.Uint64(b[ipv4At:]) // version and length, total length, identification, fragment
	total, length := int(head>>32&0xffff), int(binary.BigEndian.Uint16(b[udpAt+4:]))
	src, dst := binary.BigEndian.Uint16(b[udpAt:]), binary.BigEndian.Uint16(b[udpAt+2:])
	switch {
	case head>>56 != 0x45 || head&0x3fff != 0 || b[ipv4At+9] != frame.ProtoUDP:
	case total > len(b)-ipv4At || length > total-20 || length < 8+240:
	case src != portDHCPServer && src != portDHCPClient && dst != portDHCPServer && dst != portDHCPClient:
	case b[dhcpAt+1] != 1 || b[dhcpAt+2] != 6:
	default:
		return udpAt + length
	}
	return 0
}

// protocolsOf are those that a frame of a kind has; the others' fields are absent.
var protocolsOf = [Kinds]string{KindARP: " frame eth arp sender iface ", KindDHCP: " frame eth ip udp dhcp sender iface "}

// Never reports whether no frame of the kind has the field.
func (f *Field) Never(k Kind) bool {
	protocol, _, _ := strings.Cut(f.Name, ".")
	return k != KindOther && !strings.Contains(protocolsOf[k], " "+protocol+" ")
}

// Spot is where a number is that each frame of a kind has.
type Spot struct {
	mask  uint64
	off   uint16 // of 8 bytes in the frame
	shift uint8
	typ   bool // it is the DHCP message type, wherever that stands
}

// NewSpot finds the field in frames of the kind. ok is false if they need not have it there; once if it can
// have other occurrences behind that one.
func NewSpot(f *Field, k Kind) (s Spot, once, ok bool) {
	if k == KindOther || !f.Type.Numeric() {
		return s, false, false
	}
	at, once := Place{}, true
	switch {
	case f.Name == "eth.type":
		at = Place{LayerEth, 12, 2, 0, 0xffff}
	case f.Name == "dhcp.hw.mac_addr" && k == KindDHCP:
		at, once = Place{LayerDHCP, 28, 6, 0, 1<<48 - 1}, false
	case f.Name == "dhcp.option.dhcp" && k == KindDHCP:
		return Spot{typ: true, mask: 0xff}, true, true
	case len(f.At) == 1 && (f.get == nil || f.At[0].Layer == LayerARP):
		at = f.At[0]
	default:
		return s, false, false
	}
	layer := layersOf[k][at.Layer]
	end := int(layer.off) + at.Off + at.Len
	if at.Len == 0 || end > int(layer.end) {
		return s, false, false
	}
	off := max(0, end-8)
	return Spot{mask: at.Mask, off: uint16(off), shift: uint8(8*(off+8-end)) + at.Shift}, once, true
}

// Of is the number in a frame of the kind. It does not allocate.
func (s *Spot) Of(p *Packet) uint64 {
	if s.typ {
		return uint64(p.views.dhcp.Type)
	}
	return binary.BigEndian.Uint64(p.b[s.off:]) >> (s.shift & 63) & s.mask
}

// Bits are bits of a number at its place, which can be told from others in fewer steps than the number takes: the
// bytes are left in the order that they are read in.
type Bits struct {
	mask  uint64
	off   uint16
	shift uint8
	typ   bool
}

// Bits are those of the number that are set in keep.
func (s Spot) Bits(keep uint64) Bits {
	if s.typ {
		return Bits{mask: s.mask & keep, typ: true}
	}
	return Bits{bits.ReverseBytes64((s.mask & keep) << s.shift), s.off, s.shift, false}
}

// From gives the bits of a number.
func (t *Bits) From(number uint64) uint64 {
	if t.typ {
		return number & t.mask
	}
	return bits.ReverseBytes64(number<<t.shift) & t.mask
}

// Of gives those of a frame of the kind. It does not allocate.
func (t *Bits) Of(p *Packet) uint64 {
	if t.typ {
		return uint64(p.views.dhcp.Type) & t.mask
	}
	return binary.LittleEndian.Uint64(p.b[t.off:]) & t.mask
}
