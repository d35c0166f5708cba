package frame

import "encoding/binary"

// IPv4 is a view of an IPv4 header (RFC 791). Addresses are in host byte order.
type IPv4 struct {
	TotalLen, ID uint16
	HdrLen       uint8 // bytes
	DSCP, TTL    uint8
	Proto        uint8
	MoreFrags    bool
	FragOffset   uint16 // bytes
	Src, Dst     uint32
	// Payload is clipped to TotalLen: Ethernet padding is not in it.
	Payload   []byte
	Malformed Cause
}

// Decode overwrites p with a view of b, an EtherType 0x0800 payload. It cannot
// fail and does not allocate. Payload is nil if the header is malformed.
func (p *IPv4) Decode(b []byte) {
	*p = IPv4{}
	if len(b) < 20 {
		p.Malformed = CauseShortIPv4
		return
	}
	p.HdrLen, p.DSCP = b[0]&0x0f*4, b[1]>>2
	p.TotalLen, p.ID = binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:])
	frag := binary.BigEndian.Uint16(b[6:])
	p.MoreFrags, p.FragOffset = frag&0x2000 != 0, frag&0x1fff*8
	p.TTL, p.Proto = b[8], b[9]
	p.Src, p.Dst = binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	switch {
	case b[0]>>4 != 4:
		p.Malformed = CauseIPVersion
	case p.HdrLen < 20 || int(p.HdrLen) > len(b):
		p.Malformed = CauseIPv4HdrLen
	case p.TotalLen < uint16(p.HdrLen) || int(p.TotalLen) > len(b):
		p.Malformed = CauseIPv4TotalLen
	default:
		p.Payload = b[p.HdrLen:p.TotalLen]
	}
}

// Fragment reports whether the packet is a fragment, the first included.
func (p *IPv4) Fragment() bool { return p.MoreFrags || p.FragOffset != 0 }

// UDP is a view of a UDP header (RFC 768), numbers in host byte order.
type UDP struct {
	SrcPort, DstPort, Length uint16
	// Payload is clipped to Length.
	Payload   []byte
	Malformed Cause
}

// Decode overwrites u with a view of b, the payload of an IP packet of protocol
// 17 at fragment offset 0. It cannot fail and does not allocate. The Length of
// a first fragment is that of the whole datagram, and so CauseUDPLen: who may
// send such a thing is for the caller to say, by the ports.
func (u *UDP) Decode(b []byte) {
	*u = UDP{}
	if len(b) < 8 {
		u.Malformed = CauseShortUDP
		return
	}
	u.SrcPort, u.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	u.Length = binary.BigEndian.Uint16(b[4:])
	if u.Length < 8 || int(u.Length) > len(b) {
		u.Malformed = CauseUDPLen
		return
	}
	u.Payload = b[8:u.Length]
}
