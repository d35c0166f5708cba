package frame

import "encoding/binary"

// UDP is a view of a UDP header (RFC 768), numbers in host byte order. A field
// is valid if Header reaches that far.
type UDP struct {
	SrcPort, DstPort, Length uint16
	// Header is what can be read of the header, at most 8 bytes.
	Header []byte
	// Payload is clipped to Length, or to what there is where that is less.
	Payload   []byte
	Malformed Cause
}

// Decode overwrites u with a view of b, the payload of an IP packet of protocol
// 17 at fragment offset 0. It cannot fail and does not allocate. The Length of
// a first fragment is that of the whole datagram, and so CauseUDPLen: who may
// send such a thing is for the caller to say, by the ports.
func (u *UDP) Decode(b []byte) {
	*u = UDP{Header: b[:min(len(b), 8)]}
	if len(b) < 8 {
		u.Malformed = CauseShortUDP
		if len(b) >= 4 {
			u.SrcPort, u.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
		if len(b) >= 6 {
			u.Length = binary.BigEndian.Uint16(b[4:])
		}
		return
	}
	u.SrcPort, u.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	u.Length = binary.BigEndian.Uint16(b[4:])
	switch {
	case u.Length < 8:
		u.Malformed = CauseUDPLen
	case int(u.Length) > len(b):
		u.Payload, u.Malformed = b[8:], CauseUDPLen
	default:
		u.Payload = b[8:u.Length]
	}
}

// Port reports whether either port is n.
func (u *UDP) Port(n uint16) bool { return u.SrcPort == n || u.DstPort == n }
