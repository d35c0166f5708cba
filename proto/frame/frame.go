// Package frame is a bounded view of an Ethernet frame: the link header, its
// VLAN tags, LLC/SNAP, IPv4, IPv6 and UDP. It knows nothing of ARP, DHCP or
// rules.
//
// A view that is malformed still gives what its bytes say, as far as they go:
// the length it was given bounds it then, where the declared one cannot.
package frame

import "encoding/binary"

// MaxTags is the number of VLAN tags that are read; a frame with more is
// malformed (CauseTooManyTags), never misread.
const MaxTags = 8

// HeaderLen is the length of the Ethernet header in bytes, without tags.
const HeaderLen = 14

// Tag is one VLAN tag: its TPID, its TCI (IEEE 802.1Q) and the type or length
// behind it, in host byte order.
type Tag struct{ TPID, TCI, Type uint16 }

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
	// EtherType of the payload: from the header, the last tag, or SNAP where its
	// OUI says that an EtherType follows. 0 if the payload has none.
	EtherType uint16
	// Length is the 802.3 length field, valid if Is8023. It stands where the
	// EtherType of the header or of the last tag would. An EtherType of 0, which
	// could be a length as well, is taken for one without payload.
	Length uint16
	Is8023 bool
	// LLC is the LLC header with its SNAP header, if any, nil if there is none. It is at LLCAt in Bytes.
	LLC   []byte
	LLCAt int
	// OUI and SNAPType tell of a SNAP header (RFC 1042), valid if HasSNAP.
	OUI      uint32
	SNAPType uint16
	HasSNAP  bool
	// Payload is what the last link header carries, clipped to the 802.3 length.
	Payload []byte
	// Malformed is the first cause found; what precedes it is decoded.
	Malformed Cause

	nTags int
	tags  [MaxTags]Tag
	// tagAt is where each tag's TCI stands in Bytes.
	tagAt [MaxTags]uint16
}

// Tags are the VLAN tags, the outermost first.
func (f *Frame) Tags() []Tag { return f.tags[:f.nTags] }

// TagBytes are the four bytes of the i-th tag: TCI, and the type behind it. The
// last tag of a frame with CauseShortTag has fewer, but its whole TCI.
func (f *Frame) TagBytes(i int) []byte {
	at := int(f.tagAt[i])
	end := min(at+4, len(f.Bytes))
	return f.Bytes[at:end:end]
}

// TagAt is where they are in Bytes.
func (f *Frame) TagAt(i int) int { return int(f.tagAt[i]) }

// Decode overwrites f with a view of b. It cannot fail: what is wrong with b is
// in f.Malformed. It does not allocate.
func (f *Frame) Decode(b []byte) {
	f.reset(b)
	if len(b) < HeaderLen {
		f.Malformed = CauseShortHeader
		return
	}
	typ, rest := binary.BigEndian.Uint16(b[12:]), b[HeaderLen:]
	for {
		for isTPID(typ) {
			if rest = f.decodeTag(typ, rest); rest == nil {
				return
			}
			typ = f.tags[f.nTags-1].Type
		}
		if f.HasSNAP || typ >= 0x0600 && typ != typeLLC || typ == 0 {
			f.endLink(typ, rest)
			return
		}
		if typ == typeLLC {
			rest = f.decodeLLC(rest)
		} else {
			rest = f.decode8023(typ, rest)
		}
		if f.EtherType == typeLLC {
			f.EtherType = 0
			f.endLink(typeLLC, rest)
			return
		}
		if !f.HasSNAP || !isTPID(f.EtherType) {
			f.Payload = rest
			return
		}
		// Tags behind SNAP: one more way to hide a protocol (CVE-2021-27853).
		typ, f.EtherType = f.EtherType, 0
	}
}

// reset leaves the arrays alone: nTags says how much of them is valid.
func (f *Frame) reset(b []byte) {
	f.Bytes, f.LLC, f.Payload, f.nTags, f.Malformed = b, nil, nil, 0, CauseNone
	f.EtherType, f.Length, f.SNAPType, f.OUI, f.Is8023, f.HasSNAP = 0, 0, 0, 0, false, false
}

// decodeTag reads the tag in front of rest and gives what is behind it, nil if
// that cannot be.
func (f *Frame) decodeTag(tpid uint16, rest []byte) []byte {
	if f.nTags == MaxTags {
		f.Malformed = CauseTooManyTags
		return nil
	}
	if len(rest) < 4 {
		f.Malformed = CauseShortTag
		if len(rest) < 2 {
			return nil
		}
	}
	tag := &f.tags[f.nTags]
	*tag = Tag{TPID: tpid, TCI: binary.BigEndian.Uint16(rest)}
	f.tagAt[f.nTags] = uint16(cap(f.Bytes) - cap(rest))
	f.nTags++
	if len(rest) < 4 {
		return nil
	}
	tag.Type = binary.BigEndian.Uint16(rest[2:])
	return rest[4:]
}

// typeLLC is the EtherType behind which a jumbo frame has its LLC header, which
// has no length field then.
const typeLLC = 0x8870

// endLink ends the link header. Behind SNAP there is no second one: the number
// can only be an EtherType there.
func (f *Frame) endLink(typ uint16, rest []byte) {
	if f.HasSNAP && (typ < 0x0600 || typ == typeLLC) {
		f.Malformed = CauseNestedLength
		return
	}
	f.EtherType, f.Payload = typ, rest
	// Nobody knows whether 0 is a length or a type; who takes it for a length
	// reads on.
	if typ == 0 && len(rest) > 0 && rest[0]&^1 == sapSNAP {
		f.Malformed = CauseBadLength
	}
}

// sapSNAP is SNAP's service access point, without its lowest bit.
const sapSNAP = 0xaa

// decode8023 reads the LLC header and, behind it, SNAP: ARP and IPv4 travel
// there as well (RFC 1042), and so do those who hide them (CVE-2021-27853). It
// gives the payload.
func (f *Frame) decode8023(length uint16, rest []byte) []byte {
	f.Is8023, f.Length = true, length
	if length > 1500 {
		f.Malformed = CauseBadLength
		return nil
	}
	raw := len(rest) >= 2 && rest[0] == 0xff && rest[1] == 0xff
	if int(length) > len(rest) {
		f.Malformed = CauseBadLength // and yet what is there can be read
	} else {
		rest = rest[:length]
	}
	if raw {
		return rest // Novell's 802.3: IPX without an LLC header
	}
	return f.decodeLLC(rest)
}

func (f *Frame) decodeLLC(rest []byte) []byte {
	n := 3
	if len(rest) >= 3 && rest[2]&3 != 3 {
		n = 4 // information and supervisory frames have a control field of two bytes
	}
	if len(rest) < n {
		f.shortLLC(rest)
		return nil
	}
	// The lowest bits of the SAPs are not the address's: group, and response.
	if rest[0]&^1 != sapSNAP || rest[1]&^1 != sapSNAP {
		f.setLLC(rest, n)
		if rest[0]&^1 == sapSNAP && f.Malformed == CauseNone {
			f.Malformed = CauseHalfSNAP // receivers go by the destination alone
		}
		if rest[0]&^1 == 0x06 { // RFC 948
			f.EtherType = 0x0800
		}
		return rest[n:]
	}
	return f.decodeSNAP(n, rest)
}

func (f *Frame) decodeSNAP(n int, rest []byte) []byte {
	if len(rest) < n+5 {
		f.shortLLC(rest)
		return nil
	}
	f.setLLC(rest, n+5)
	f.HasSNAP = true
	f.OUI = uint32(rest[n])<<16 | uint32(rest[n+1])<<8 | uint32(rest[n+2])
	f.SNAPType = binary.BigEndian.Uint16(rest[n+3:])
	// RFC 1042 and 802.1H put an EtherType behind their OUIs.
	if f.OUI == 0 || f.OUI == 0x0000f8 {
		f.EtherType = f.SNAPType
	}
	return rest[n+5:]
}

// setLLC says that the header is the first n bytes of rest.
func (f *Frame) setLLC(rest []byte, n int) {
	f.LLC, f.LLCAt = rest[:n:n], cap(f.Bytes)-cap(rest)
}

// shortLLC shows what there is of a header.
func (f *Frame) shortLLC(b []byte) {
	if len(b) > 0 {
		f.setLLC(b, len(b))
	}
	if f.Malformed == CauseNone {
		f.Malformed = CauseShortLLC
	}
}

// isTPID names the tag protocol identifiers: 802.1Q, 802.1ad, and the 0x9100
// to 0x9300 that older switches use for stacked tags.
func isTPID(t uint16) bool {
	return t == 0x8100 || t == 0x88a8 || t == 0x9100 || t == 0x9200 || t == 0x9300
}
