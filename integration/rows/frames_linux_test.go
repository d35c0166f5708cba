package rows

import (
	"encoding/binary"
	"net"
)

// announcement is an ARP announcement of 192.0.2.x.
func announcement(src net.HardwareAddr, x byte) []byte {
	return arpFrame(net.HardwareAddr{255, 255, 255, 255, 255, 255}, src, 1, src, net.IPv4(192, 0, 2, x), nil, net.IPv4(192, 0, 2, x))
}

// announced is the inverse of announcement.
func announced(b []byte) (x byte, ok bool) {
	if len(b) < 42 || string(b[12:14]) != "\x08\x06" || string(b[28:31]) != "\xc0\x00\x02" {
		return 0, false
	}
	return b[31], true
}

// arpFrame is an ARP packet, padded. A target hardware address of nil is unknown.
func arpFrame(dst, src net.HardwareAddr, opcode byte, senderMAC net.HardwareAddr, sender net.IP, targetMAC net.HardwareAddr, target net.IP) []byte {
	b := make([]byte, 60)
	copy(b, dst)
	copy(b[6:], src)
	copy(b[12:], []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, opcode})
	copy(b[22:], senderMAC)
	copy(b[28:], sender.To4())
	copy(b[32:], targetMAC)
	copy(b[38:], target.To4())
	return b
}

// udpFrame is a UDP datagram from port 80 to port 4000 that ends with a number.
func udpFrame(dst, src net.HardwareAddr, from, to net.IP, id byte) []byte {
	b := make([]byte, 60)
	copy(b, dst)
	copy(b[6:], src)
	copy(b[12:], []byte{8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17})
	copy(b[26:], from.To4())
	copy(b[30:], to.To4())
	binary.BigEndian.PutUint16(b[24:], checksum(b[14:34]))
	copy(b[34:], []byte{0, 80, 4000 >> 8, 4000 & 255, 0, 26})
	copy(b[56:], mark)
	b[59] = id
	return b
}

const mark = "PST"

// numbered is how often frames that end with each number arrived, whatever is before it.
func numbered(frames map[string]int) map[byte]int {
	counts := map[byte]int{}
	for f, n := range frames {
		if len(f) > 4 && f[len(f)-4:len(f)-1] == mark {
			counts[f[len(f)-1]] += n
		}
	}
	return counts
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// tagged puts an 802.1Q tag into a frame.
func tagged(frame []byte, tci uint16) []byte {
	b := append(frame[:12:12], 0x81, 0, byte(tci>>8), byte(tci))
	return append(b, frame[12:]...)
}

// inSNAP puts what is behind the addresses of a frame into 802.3 with LLC/SNAP.
func inSNAP(frame []byte) []byte {
	b := append(frame[:12:12], 0, byte(6+len(frame)-12), 0xaa, 0xaa, 3, 0, 0, 0)
	return append(b, frame[12:]...)
}
