package frame

import "encoding/binary"

// MaxExtensions is the number of extension headers that are walked; a packet
// with more is malformed (CauseIPv6Ext), never misread.
const MaxExtensions = 8

// ipv6Len is the length of the fixed header in bytes.
const ipv6Len = 40

// IPv6 is a view of an IPv6 header (RFC 8200) and of the extension headers
// behind it. A field is valid if Header reaches that far.
type IPv6 struct {
	PayloadLen      uint16 // bytes, the extension headers included
	NextHdr, HopLim uint8
	Src, Dst        [16]byte
	// Header is what can be read of the fixed header, with the extension headers.
	Header []byte
	// Proto is the protocol of Payload, behind the extension headers.
	Proto uint8
	// MoreFrags and FragOffset (bytes) are a fragment header's.
	MoreFrags  bool
	FragOffset uint16
	// Payload is what is behind the extension headers, clipped to PayloadLen, or
	// to the frame where PayloadLen is beyond it.
	Payload   []byte
	Malformed Cause
}

// Decode overwrites p with a view of b, an EtherType 0x86dd payload. It cannot
// fail and does not allocate.
func (p *IPv6) Decode(b []byte) {
	*p = IPv6{Header: b[:min(len(b), ipv6Len)]}
	if len(b) < ipv6Len {
		p.Malformed = CauseShortIPv6
		return
	}
	if b[0]>>4 != 6 {
		p.Header, p.Malformed = b[:1:1], CauseIPVersion
		return
	}
	p.PayloadLen, p.NextHdr, p.HopLim = binary.BigEndian.Uint16(b[4:]), b[6], b[7]
	copy(p.Src[:], b[8:])
	copy(p.Dst[:], b[24:])
	rest := b[ipv6Len:]
	if int(p.PayloadLen) > len(rest) {
		p.Malformed = CauseIPv6Len
	} else {
		rest = rest[:p.PayloadLen]
	}
	p.Header = b[:ipv6Len+p.walk(rest)]
}

// walk goes behind the extension headers and tells their length. It stops at the
// fragment header of a fragment that is not the first, and does not count it: what
// follows has no header.
func (p *IPv6) walk(rest []byte) (length int) {
	p.Proto = p.NextHdr
	for range MaxExtensions + 1 {
		n := extensionLen(p.Proto, rest)
		if n == 0 {
			p.Payload = rest
			return length
		}
		if n > len(rest) {
			break
		}
		next := rest[0]
		if p.Proto == ProtoFragment {
			frag := binary.BigEndian.Uint16(rest[2:])
			p.MoreFrags, p.FragOffset = p.MoreFrags || frag&1 != 0, frag&^7
		}
		p.Proto, rest, length = next, rest[n:], length+n
		if p.FragOffset != 0 {
			p.Payload = rest
			return length - n // as Wireshark has it
		}
	}
	if p.Malformed == CauseNone {
		p.Malformed = CauseIPv6Ext
	}
	return length
}

// Protocol numbers with a meaning to the views (IANA).
const (
	ProtoUDP      = 17
	ProtoFragment = 44
	ProtoAH       = 51
)

// extensionLen is the length in bytes of the extension header of protocol proto
// in front of b, which may be more than there is; 0 if proto is none.
func extensionLen(proto uint8, b []byte) int {
	switch proto {
	case 0, 43, 60: // hop-by-hop, routing, destination
		if len(b) < 2 {
			return 8
		}
		return 8 + 8*int(b[1])
	case ProtoFragment:
		return 8
	case ProtoAH: // RFC 4302
		if len(b) < 2 {
			return 8
		}
		return 8 + 4*int(b[1])
	}
	return 0
}

// SkipAH goes behind the authentication headers (RFC 4302) in front of an IPv4
// payload of protocol proto, as the walk does in IPv6. ok is false if there are
// too many, or one is beyond b.
func SkipAH(proto uint8, b []byte) (next uint8, rest []byte, ok bool) {
	for n := 0; proto == ProtoAH; n++ {
		size := extensionLen(proto, b)
		if n == MaxExtensions || size > len(b) {
			return proto, b, false
		}
		proto, b = b[0], b[size:]
	}
	return proto, b, true
}
