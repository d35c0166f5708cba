// Package frame is a bounded view of an Ethernet frame: the link header, its
// VLAN tags, LLC/SNAP, IPv4 and UDP. It knows nothing of ARP, DHCP or rules, and
// never looks past a layer's declared length.
package frame

import "encoding/binary"

// MaxTags is the number of VLAN tags that are read; a frame with more is
// malformed (CauseTooManyTags), never misread.
const MaxTags = 8

// Cause says why a frame is malformed. The zero value means that it is not.
type Cause uint8

// The causes.
const (
	CauseNone         Cause = iota
	CauseShortHeader        // shorter than its Ethernet header
	CauseShortTag           // ends inside a VLAN tag
	CauseTooManyTags        // more than MaxTags VLAN tags
	CauseBadLength          // 802.3 length beyond the frame, or 1501 to 1535
	CauseShortLLC           // 802.3 length too short for its LLC or SNAP header
	CauseShortIPv4          // shorter than an IPv4 header
	CauseIPVersion          // EtherType 0x0800, but the version is not 4
	CauseIPv4HdrLen         // IHL below 5, or beyond the frame
	CauseIPv4TotalLen       // total length below the header's, or beyond the frame
	CauseShortUDP           // shorter than a UDP header
	CauseUDPLen             // UDP length below 8, or beyond the IP payload
)

// String gives the cause in words.
func (c Cause) String() string {
	return [...]string{"none", "short Ethernet header", "short VLAN tag", "too many VLAN tags",
		"802.3 length is impossible", "short LLC/SNAP header",
		"short IPv4 header", "IP version is not 4", "bad IPv4 header length", "bad IPv4 total length",
		"short UDP header", "bad UDP length"}[c]
}

// Tag is one VLAN tag: its TPID and TCI (IEEE 802.1Q), in host byte order.
type Tag struct{ TPID, TCI uint16 }

// ID is the VLAN identifier, 0 to 4095.
func (t Tag) ID() uint16 { return t.TCI & 0x0fff }

// Priority is the PCP, 0 to 7.
func (t Tag) Priority() uint8 { return uint8(t.TCI >> 13) }

// DEI is the drop eligible indicator.
func (t Tag) DEI() bool { return t.TCI&0x1000 != 0 }

// Frame is a decoded frame. Its slices point into the bytes given to Decode,
// which the caller owns.
type Frame struct {
	Bytes []byte
	tags  [MaxTags]Tag
	nTags int
	// EtherType of the payload: from the header, the last tag, or SNAP with the
	// OUI 00:00:00. 0 if the payload has none.
	EtherType uint16
	// Length is the 802.3 length field, valid if Is8023.
	Length uint16
	Is8023 bool
	// OUI and HasSNAP tell of a SNAP header (RFC 1042).
	OUI     uint32
	HasSNAP bool
	// Payload is what the last link header carries, clipped to the 802.3 length.
	Payload []byte
	// Malformed is the first cause found; what precedes it is decoded.
	Malformed Cause
}

// Tags are the VLAN tags, the outermost first.
func (f *Frame) Tags() []Tag { return f.tags[:f.nTags] }

// Decode overwrites f with a view of b. It cannot fail: what is wrong with b is
// in f.Malformed. It does not allocate.
func (f *Frame) Decode(b []byte) {
	*f = Frame{Bytes: b}
	if len(b) < 14 {
		f.Malformed = CauseShortHeader
		return
	}
	typ, rest := binary.BigEndian.Uint16(b[12:]), b[14:]
	for isTPID(typ) {
		if f.nTags == MaxTags {
			f.Malformed = CauseTooManyTags
			return
		}
		if len(rest) < 4 {
			f.Malformed = CauseShortTag
			return
		}
		f.tags[f.nTags] = Tag{typ, binary.BigEndian.Uint16(rest)}
		f.nTags++
		typ, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	if typ >= 0x0600 {
		f.EtherType, f.Payload = typ, rest
		return
	}
	f.decode8023(typ, rest)
}

// decode8023 reads the LLC header and, behind it, SNAP: ARP and IPv4 travel
// there as well (RFC 1042), and so do those who hide them (CVE-2021-27853).
func (f *Frame) decode8023(length uint16, rest []byte) {
	f.Is8023, f.Length = true, length
	if length > 1500 || int(length) > len(rest) {
		f.Malformed = CauseBadLength
		return
	}
	rest = rest[:length]
	if len(rest) < 3 {
		f.Malformed = CauseShortLLC
		return
	}
	if rest[0] != 0xaa || rest[1] != 0xaa || rest[2] != 0x03 {
		f.Payload = rest
		return
	}
	if len(rest) < 8 {
		f.Malformed = CauseShortLLC
		return
	}
	f.HasSNAP = true
	f.OUI = uint32(rest[3])<<16 | uint32(rest[4])<<8 | uint32(rest[5])
	if f.OUI == 0 {
		f.EtherType = binary.BigEndian.Uint16(rest[6:])
	}
	f.Payload = rest[8:]
}

// isTPID names the tag protocol identifiers: 802.1Q, 802.1ad, and the 0x9100
// to 0x9300 that older switches use for stacked tags.
func isTPID(t uint16) bool {
	return t == 0x8100 || t == 0x88a8 || t == 0x9100 || t == 0x9200 || t == 0x9300
}
