package frame

import "encoding/binary"

// IPv4 is a view of an IPv4 header (RFC 791). Addresses are in host byte order.
// A field is valid if Header reaches that far.
type IPv4 struct {
	TotalLen, ID uint16
	HdrLen       uint8 // bytes
	DSCP, TTL    uint8
	Proto        uint8
	MoreFrags    bool
	FragOffset   uint16 // bytes
	Src, Dst     uint32
	// Header is what can be read of the header: all of it with its options, or,
	// where its lengths make no sense, what precedes them.
	Header []byte
	// Payload is clipped to TotalLen: Ethernet padding is not in it. A TotalLen of
	// 0 or beyond the frame is malformed, and the frame clips the payload.
	Payload   []byte
	Malformed Cause
}

// Decode overwrites p with a view of b, an EtherType 0x0800 payload. It cannot
// fail and does not allocate.
func (p *IPv4) Decode(b []byte) {
	*p = IPv4{}
	if len(b) < 20 {
		p.decodeShort(b)
		return
	}
	p.HdrLen, p.DSCP = b[0]&0x0f*4, b[1]>>2
	p.TotalLen, p.ID = binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:])
	frag := binary.BigEndian.Uint16(b[6:])
	p.MoreFrags, p.FragOffset = frag&0x2000 != 0, frag&0x1fff*8
	p.TTL, p.Proto = b[8], b[9]
	p.Src, p.Dst = binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	n := int(p.HdrLen)
	switch {
	case b[0]>>4 != 4:
		p.Header, p.Malformed = b[:1:1], CauseIPVersion
	case n < 20:
		p.Header, p.Malformed = b[:1:1], CauseIPv4HdrLen
	case p.TotalLen != 0 && int(p.TotalLen) < n:
		p.Header, p.Malformed = b[:4:4], CauseIPv4TotalLen
	case n > len(b):
		p.Header, p.Malformed = b, CauseIPv4HdrLen
	case p.TotalLen == 0 || int(p.TotalLen) > len(b):
		p.Header, p.Payload, p.Malformed = b[:n:n], b[n:], CauseIPv4TotalLen
	default:
		p.Header, p.Payload = b[:n:n], b[n:p.TotalLen]
	}
}

// decodeShort reads what there is of a header that is cut.
func (p *IPv4) decodeShort(b []byte) {
	var whole [20]byte
	copy(whole[:], b)
	if len(b) < 4 {
		whole[2], whole[3] = 0, 20
	}
	p.Decode(whole[:])
	p.Payload, p.Malformed = nil, CauseShortIPv4
	p.Header = b[:min(len(b), len(p.Header))]
}

// Fragment reports whether the packet is a fragment, the first included.
func (p *IPv4) Fragment() bool { return p.MoreFrags || p.FragOffset != 0 }
