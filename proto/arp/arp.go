// Package arp is a bounded view of an ARP packet (RFC 826) over Ethernet and
// IPv4. It knows nothing of frames or rules.
package arp

import "encoding/binary"

// Cause says why a packet is malformed. The zero value means that it is not.
type Cause uint8

// The causes.
const (
	CauseNone      Cause = iota
	CauseShort           // shorter than 28 bytes
	CauseHWType          // ar$hrd is not 1 (Ethernet)
	CauseProtoType       // ar$pro is not 0x0800 (IPv4)
	CauseHWSize          // ar$hln is not 6
	CauseProtoSize       // ar$pln is not 4
)

// String gives the cause in words.
func (c Cause) String() string {
	return [...]string{"none", "short ARP packet", "ARP hw.type is not 1", "ARP proto.type is not 0x0800",
		"ARP hw.size is not 6", "ARP proto.size is not 4"}[c]
}

// Packet is a decoded packet. The addresses are valid only if Malformed is
// CauseNone; IPv4 addresses are in host byte order.
type Packet struct {
	HWType, ProtoType, Opcode uint16
	HWSize, ProtoSize         uint8
	SrcHW, DstHW              [6]byte
	SrcIPv4, DstIPv4          uint32
	Malformed                 Cause
}

// Decode overwrites p with what b says. Bytes beyond the packet are padding and
// are not read. It cannot fail and does not allocate.
func (p *Packet) Decode(b []byte) {
	*p = Packet{}
	if len(b) < 8 {
		p.Malformed = CauseShort
		return
	}
	p.HWType, p.ProtoType = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.HWSize, p.ProtoSize = b[4], b[5]
	p.Opcode = binary.BigEndian.Uint16(b[6:])
	switch {
	case p.HWType != 1:
		p.Malformed = CauseHWType
	case p.ProtoType != 0x0800:
		p.Malformed = CauseProtoType
	case p.HWSize != 6:
		p.Malformed = CauseHWSize
	case p.ProtoSize != 4:
		p.Malformed = CauseProtoSize
	case len(b) < 28:
		p.Malformed = CauseShort
	default:
		copy(p.SrcHW[:], b[8:])
		p.SrcIPv4 = binary.BigEndian.Uint32(b[14:])
		copy(p.DstHW[:], b[18:])
		p.DstIPv4 = binary.BigEndian.Uint32(b[24:])
	}
}
