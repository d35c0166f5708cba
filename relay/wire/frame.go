package wire

import (
	"encoding/binary"

	"github.com/postern-fw/postern/proto/frame"
)

// Datagram is where a client's or a server's message stands in a frame.
type Datagram struct {
	EthDst, EthSrc   [6]byte
	Src, Dst         uint32
	SrcPort, DstPort uint16
	Payload          []byte
}

// Fault says what is wrong with a frame; "" is nothing.
type Fault string

// The faults.
const (
	FaultFrame    Fault = "malformed frame"
	FaultFragment Fault = "fragment"
	FaultChecksum Fault = "bad checksum"
)

// Decode reads the headers before a message. summed says that checksums were computed.
func (d *Datagram) Decode(b []byte, summed bool) Fault {
	var f frame.Frame
	f.Decode(b)
	if f.Malformed != frame.CauseNone || f.EtherType != 0x0800 || len(f.Tags()) > 0 || f.HasSNAP {
		return FaultFrame
	}
	var ip frame.IPv4
	ip.Decode(f.Payload)
	if ip.Malformed != frame.CauseNone || ip.Proto != 17 {
		return FaultFrame
	}
	if ip.Fragment() {
		return FaultFragment
	}
	var u frame.UDP
	u.Decode(ip.Payload)
	if u.Malformed != frame.CauseNone {
		return FaultFrame
	}
	// Where the kernel left the UDP checksum out, the IPv4 header still has its own.
	if fold(sum(0, ip.Header)) != 0xffff {
		return FaultChecksum
	}
	if sent := binary.BigEndian.Uint16(u.Header[6:]); summed && sent != 0 &&
		fold(sum(pseudo(ip.Src, ip.Dst, u.Length), ip.Payload[:u.Length])) != 0xffff {
		return FaultChecksum
	}
	copy(d.EthDst[:], b)
	copy(d.EthSrc[:], b[6:])
	d.Src, d.Dst, d.SrcPort, d.DstPort, d.Payload = ip.Src, ip.Dst, u.SrcPort, u.DstPort, u.Payload
	return ""
}

// The lengths of what precedes a message.
const (
	ipLen  = 20
	udpLen = 8
	// HeadersLen is room for Ethernet with a tag, IPv4 and UDP.
	HeadersLen = frame.HeaderLen + 4 + ipLen + udpLen
)

// Append appends the frame of a datagram, with a VLAN tag if there is one.
func (d *Datagram) Append(dst []byte, vlan uint16, tagged bool) []byte {
	dst = append(append(dst, d.EthDst[:]...), d.EthSrc[:]...)
	if tagged {
		dst = binary.BigEndian.AppendUint16(append(dst, 0x81, 0x00), vlan)
	}
	dst = append(dst, 0x08, 0x00)
	at, length := len(dst), udpLen+len(d.Payload)
	dst = append(dst, 0x45, 0x10) // low delay, as servers and agents send it
	dst = binary.BigEndian.AppendUint16(dst, uint16(ipLen+length))
	dst = append(dst, 0, 0, 0, 0, 64, 17, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, d.Src)
	dst = binary.BigEndian.AppendUint32(dst, d.Dst)
	binary.BigEndian.PutUint16(dst[at+10:], ^fold(sum(0, dst[at:])))
	udp := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, d.SrcPort)
	dst = binary.BigEndian.AppendUint16(dst, d.DstPort)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	dst = append(append(dst, 0, 0), d.Payload...)
	check := ^fold(sum(pseudo(d.Src, d.Dst, uint16(length)), dst[udp:]))
	if check == 0 {
		check = 0xffff // 0 would mean that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(dst[udp+6:], check)
	return dst
}

// sum adds 16-bit words up (RFC 1071).
func sum(s uint64, b []byte) uint64 {
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func pseudo(src, dst uint32, length uint16) uint64 {
	return uint64(src) + uint64(dst) + 17 + uint64(length)
}
