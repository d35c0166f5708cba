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

// Packet is a view of a packet; IPv4 addresses are in host byte order. If Malformed
// is CauseNone everything is there. Else a field of the header is there if Bytes
// reaches that far, and the addresses if HasHW and HasIPv4 say so: they are read
// where ar$hln and ar$pln put them, as Wireshark does. What is not there reads as zero.
type Packet struct {
	// Bytes are the packet without padding, as far as it goes. The caller of Decode owns them.
	Bytes          []byte
	HasHW, HasIPv4 bool
	Malformed      Cause
}

// Decode overwrites p with what b says. Bytes beyond the packet are padding and
// are not read. It cannot fail and does not allocate.
func (p *Packet) Decode(b []byte) {
	// ar$hrd, ar$pro, ar$hln and ar$pln are one number, and nearly always this one.
	if len(b) < packetLen || binary.BigEndian.Uint64(b)>>16 != 0x0001_0800_0604 {
		p.decodeOdd(b)
		return
	}
	p.Bytes, p.HasHW, p.HasIPv4, p.Malformed = b[:packetLen:packetLen], true, true, CauseNone
}

// decodeOdd is for whatever is malformed.
func (p *Packet) decodeOdd(b []byte) {
	*p = Packet{Bytes: b, Malformed: CauseShort}
	if len(b) < headerLen {
		return
	}
	hln, pln := int(p.HWSize()), int(p.ProtoSize())
	size := headerLen + 2*hln + 2*pln
	switch {
	case p.HWType() != 1:
		p.Malformed = CauseHWType
	case p.ProtoType() != 0x0800:
		p.Malformed = CauseProtoType
	case hln != 6:
		p.Malformed = CauseHWSize
	case pln != 4:
		p.Malformed = CauseProtoSize
	}
	if len(b) < size {
		return
	}
	p.Bytes = b[:size:size]
	// Wireshark takes hw.type 6, IEEE 802, for Ethernet as well.
	p.HasHW = (p.HWType() == 1 || p.HWType() == 6) && hln == 6
	p.HasIPv4 = p.ProtoType() == 0x0800 && pln == 4
}

// HWType, ProtoType, HWSize, ProtoSize and Opcode are ar$hrd, ar$pro, ar$hln, ar$pln and ar$op.
func (p *Packet) HWType() uint16    { return p.uint16At(0) }
func (p *Packet) ProtoType() uint16 { return p.uint16At(2) }
func (p *Packet) HWSize() uint8     { return p.byteAt(4) }
func (p *Packet) ProtoSize() uint8  { return p.byteAt(5) }
func (p *Packet) Opcode() uint16    { return p.uint16At(6) }

// SrcHW and DstHW are ar$sha and ar$tha, valid if HasHW; else zero.
func (p *Packet) SrcHW() (hw [6]byte) {
	if p.HasHW {
		copy(hw[:], p.Bytes[headerLen:])
	}
	return hw
}

// DstHW: see SrcHW.
func (p *Packet) DstHW() (hw [6]byte) {
	if p.HasHW {
		copy(hw[:], p.Bytes[p.tha():])
	}
	return hw
}

// SrcIPv4 and DstIPv4 are ar$spa and ar$tpa, valid if HasIPv4; else zero.
func (p *Packet) SrcIPv4() uint32 {
	if !p.HasIPv4 {
		return 0
	}
	return binary.BigEndian.Uint32(p.Bytes[p.spa():])
}

// DstIPv4: see SrcIPv4.
func (p *Packet) DstIPv4() uint32 {
	if !p.HasIPv4 {
		return 0
	}
	return binary.BigEndian.Uint32(p.Bytes[p.tha()+int(p.HWSize()):])
}

// Gratuitous: sender and target protocol address are the same, in a request or a reply.
func (p *Packet) Gratuitous() bool {
	spa, tha, pln := p.spa(), p.tha(), int(p.ProtoSize())
	tpa := tha + int(p.HWSize())
	return (p.Opcode() == OpRequest || p.Opcode() == OpReply) && p.whole() && pln > 0 &&
		string(p.Bytes[spa:tha]) == string(p.Bytes[tpa:tpa+pln])
}

// Announcement: a gratuitous request with a target hardware address of zero (RFC 5227).
func (p *Packet) Announcement() bool {
	return p.Opcode() == OpRequest && p.Gratuitous() && p.zero(p.tha(), 6)
}

// Probe: a request that is not gratuitous, with a target hardware address and a sender
// protocol address of zero (RFC 5227).
func (p *Packet) Probe() bool {
	return p.Opcode() == OpRequest && p.whole() && !p.Gratuitous() && p.zero(p.tha(), 6) && p.zero(p.spa(), 4)
}

// spa and tha are where these addresses begin.
func (p *Packet) spa() int { return headerLen + int(p.HWSize()) }
func (p *Packet) tha() int { return p.spa() + int(p.ProtoSize()) }

// whole reports whether all that the sizes declare is there.
func (p *Packet) whole() bool {
	return len(p.Bytes) >= headerLen && len(p.Bytes) >= headerLen+2*int(p.HWSize())+2*int(p.ProtoSize())
}

// zero reports whether the n bytes at off are there, and all zero.
func (p *Packet) zero(off, n int) bool {
	if len(p.Bytes) < off+n {
		return false
	}
	for _, c := range p.Bytes[off : off+n] {
		if c != 0 {
			return false
		}
	}
	return true
}

func (p *Packet) byteAt(i int) uint8 {
	if len(p.Bytes) <= i {
		return 0
	}
	return p.Bytes[i]
}

func (p *Packet) uint16At(i int) uint16 {
	if len(p.Bytes) < i+2 {
		return 0
	}
	return binary.BigEndian.Uint16(p.Bytes[i:])
}
