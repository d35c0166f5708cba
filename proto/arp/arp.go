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

// The opcodes of RFC 826.
const (
	OpRequest = 1
	OpReply   = 2
)

const (
	headerLen = 8  // up to and with ar$op
	packetLen = 28 // over Ethernet and IPv4
)

// Packet is a decoded packet; IPv4 addresses are in host byte order. If Malformed
// is CauseNone everything is valid. Else a field of the header is valid if Bytes
// reaches that far, and the addresses if HasHW and HasIPv4 say so: they are read
// where ar$hln and ar$pln put them, as Wireshark does.
type Packet struct {
	// Bytes are the packet without padding, as far as it goes.
	Bytes                     []byte
	HWType, ProtoType, Opcode uint16
	HWSize, ProtoSize         uint8
	HasHW, HasIPv4            bool
	// Gratuitous: sender and target address are the same, in a request or reply.
	// Announcement: such a request, with the target's hardware address all zero.
	// Probe: a request with that and the sender address all zero (RFC 5227).
	Gratuitous, Announcement, Probe bool
	SrcHW, DstHW                    [6]byte
	SrcIPv4, DstIPv4                uint32
	Malformed                       Cause
}

// Decode overwrites p with what b says. Bytes beyond the packet are padding and
// are not read. It cannot fail and does not allocate.
func (p *Packet) Decode(b []byte) {
	*p = Packet{Bytes: b}
	if len(b) < headerLen {
		p.decodeShort(b)
		return
	}
	p.HWType, p.ProtoType = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	p.HWSize, p.ProtoSize = b[4], b[5]
	p.Opcode = binary.BigEndian.Uint16(b[6:])
	if size := headerLen + 2*int(p.HWSize) + 2*int(p.ProtoSize); size < len(b) {
		p.Bytes = b[:size:size]
	}
	switch {
	case p.HWType != 1:
		p.Malformed = CauseHWType
	case p.ProtoType != 0x0800:
		p.Malformed = CauseProtoType
	case p.HWSize != 6:
		p.Malformed = CauseHWSize
	case p.ProtoSize != 4:
		p.Malformed = CauseProtoSize
	case len(b) < packetLen:
		p.Malformed = CauseShort
		return
	default:
		p.HasHW, p.HasIPv4 = true, true
		copy(p.SrcHW[:], b[8:])
		p.SrcIPv4 = binary.BigEndian.Uint32(b[14:])
		copy(p.DstHW[:], b[18:])
		p.DstIPv4 = binary.BigEndian.Uint32(b[24:])
		p.flag(p.SrcIPv4 == p.DstIPv4, p.DstHW == [6]byte{}, p.SrcIPv4 == 0)
		return
	}
	p.decodeOdd()
}

func (p *Packet) decodeShort(b []byte) {
	p.Malformed = CauseShort
	var whole [headerLen]byte
	copy(whole[:], b)
	p.HWType, p.ProtoType = binary.BigEndian.Uint16(whole[:]), binary.BigEndian.Uint16(whole[2:])
	p.HWSize, p.ProtoSize = whole[4], whole[5]
}

// decodeOdd reads the addresses of a packet of other types or sizes.
func (p *Packet) decodeOdd() {
	b, hln, pln := p.Bytes, int(p.HWSize), int(p.ProtoSize)
	spa, tha := headerLen+hln, headerLen+hln+pln
	tpa := tha + hln
	if len(b) < tpa+pln {
		return
	}
	// Wireshark takes hw.type 6, IEEE 802, for Ethernet as well.
	p.HasHW = (p.HWType == 1 || p.HWType == 6) && hln == 6
	p.HasIPv4 = p.ProtoType == 0x0800 && pln == 4
	if p.HasHW {
		copy(p.SrcHW[:], b[headerLen:])
		copy(p.DstHW[:], b[tha:])
	}
	if p.HasIPv4 {
		p.SrcIPv4, p.DstIPv4 = binary.BigEndian.Uint32(b[spa:]), binary.BigEndian.Uint32(b[tpa:])
	}
	p.flag(pln > 0 && string(b[spa:tha]) == string(b[tpa:tpa+pln]), zero(b, tha, 6), zero(b, spa, 4))
}

// zero reports whether the n bytes of b at off are there, and all zero.
func zero(b []byte, off, n int) bool {
	if len(b) < off+n {
		return false
	}
	for _, c := range b[off : off+n] {
		if c != 0 {
			return false
		}
	}
	return true
}

func (p *Packet) flag(sameIP, noTarget, noSender bool) {
	p.Gratuitous = sameIP && (p.Opcode == OpRequest || p.Opcode == OpReply)
	p.Announcement = p.Gratuitous && noTarget && p.Opcode == OpRequest
	p.Probe = !p.Gratuitous && noTarget && noSender && p.Opcode == OpRequest
}
