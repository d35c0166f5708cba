package evasions

import "net/netip"

// ARP opcodes (IANA).
const (
	arpRequest, arpReply, rarpRequest, rarpReply = 1, 2, 3, 4
)

// arpPacket is an ARP packet over Ethernet and IPv4. The sizes are only claimed:
// the addresses stand where a receiver that does not look at them finds them.
type arpPacket struct {
	hwType, protoType int
	hwSize, protoSize byte
	opcode            int
	srcHW             MAC
	src               netip.Addr
	dstHW             MAC
	dst               netip.Addr
}

// newARP is a packet whose sizes and types are right.
func newARP(opcode int, srcHW MAC, src netip.Addr, dstHW MAC, dst netip.Addr) arpPacket {
	return arpPacket{1, typeIPv4, 6, 4, opcode, srcHW, src, dstHW, dst}
}

func (a arpPacket) bytes() []byte {
	return cat(be16(a.hwType), be16(a.protoType), []byte{a.hwSize, a.protoSize}, be16(a.opcode),
		a.srcHW[:], a.src.AsSlice(), a.dstHW[:], a.dst.AsSlice())
}

// link is the packet behind ARP's EtherType.
func (a arpPacket) link() link { return ethertype(typeARP, a.bytes()) }

// broadcast is a frame to all from the packet's own sender.
func (a arpPacket) broadcast() []byte { return a.link().frame(broadcast, a.srcHW) }
