package evasions

import (
	"encoding/binary"
	"net/netip"
)

const (
	protoIGMP, protoUDP, protoAH = 2, 17, 51

	ipDF, ipMF = 0x4000, 0x2000

	portServer, portClient = 67, 68
)

var (
	anyAddress   = netip.AddrFrom4([4]byte{})
	allAddresses = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// checksum says what stands in a checksum's place.
type checksum int

const (
	sumRight checksum = iota
	sumNone           // zero
	sumWrong
)

// put writes a checksum over b into its place at off.
func (c checksum) put(b []byte, off int, sum uint16) {
	switch c {
	case sumNone:
		sum = 0
	case sumWrong:
		sum ^= 0x5a5a
	}
	binary.BigEndian.PutUint16(b[off:], sum)
}

// internet is the checksum of RFC 1071.
func internet(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ipv4 is an IPv4 packet. Options are a multiple of 4 bytes.
type ipv4 struct {
	src, dst netip.Addr
	proto    byte
	flags    int // with the fragment offset, as in the header
	options  []byte
	payload  []byte
	totalLen int // what to claim; 0: the truth
	sum      checksum
}

func (p ipv4) bytes() []byte {
	n := 20 + len(p.options)
	total := p.totalLen
	if total == 0 {
		total = n + len(p.payload)
	}
	b := cat([]byte{0x40 | byte(n/4), 0}, be16(total), be16(0x1234), be16(p.flags), []byte{64, p.proto, 0, 0},
		p.src.AsSlice(), p.dst.AsSlice(), p.options)
	p.sum.put(b, 10, internet(b))
	return cat(b, p.payload)
}

// link is the packet behind IPv4's EtherType.
func (p ipv4) link() link { return ethertype(typeIPv4, p.bytes()) }

// fragment is the n bytes at off of p's payload, as a fragment of it. off must be
// a multiple of 8; more follow unless n reaches the end.
func (p ipv4) fragment(off, n int) ipv4 {
	p.flags = off / 8
	if off+n < len(p.payload) {
		p.flags |= ipMF
	}
	p.payload = p.payload[off : off+n]
	return p
}

// behindAH puts an authentication header (RFC 4302) in front of p's payload.
func (p ipv4) behindAH() ipv4 {
	p.payload = cat([]byte{p.proto, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, make([]byte, 12), p.payload)
	p.proto = protoAH
	return p
}

// udp is a UDP datagram.
type udp struct {
	srcPort, dstPort int
	payload          []byte
	length           int // what to claim; 0: the truth; below 0: 0
	sum              checksum
}

// in is the IPv4 packet that carries the datagram.
func (u udp) in(src, dst netip.Addr) ipv4 {
	n := 8 + len(u.payload)
	length := u.length
	if length == 0 {
		length = n
	}
	b := cat(be16(u.srcPort), be16(u.dstPort), be16(max(0, length)), be16(0), u.payload)
	// A receiver sums as many bytes as the length claims.
	covered := b
	if length > 8 && length < n {
		covered = b[:length]
	}
	sum := internet(cat(src.AsSlice(), dst.AsSlice(), []byte{0, protoUDP}, be16(max(0, length)), covered))
	if sum == 0 {
		sum = 0xffff // RFC 768: zero says that there is none
	}
	u.sum.put(b, 6, sum)
	return ipv4{src: src, dst: dst, proto: protoUDP, payload: b}
}
