package filter

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

// unhex reads hex with spaces; a mistake is the test's own.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// The makers of frames. Lengths that are to be wrong are written into the result.
func ethFrame(typ int, payload []byte) []byte {
	return join(unhex("ffffffffffff 020000000001"), be16(typ), payload)
}

func llcFrame(llc string, payload []byte) []byte {
	b := join(unhex(llc), payload)
	return ethFrame(len(b), b)
}

func arpPacket(op int, rest string) []byte {
	return join(unhex("0001 0800 06 04"), be16(op), unhex(rest))
}

func ipv4Packet(proto byte, options string, payload []byte) []byte {
	o := unhex(options)
	b := join(unhex("45b80000000700004000 0000 0a000001 0a000002"), o, payload)
	b[0] += byte(len(o) / 4)
	b[9] = proto
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func ipv6Packet(next byte, payload []byte) []byte {
	b := join(unhex("60000000 0000 0040 20010db8000000000000000000000001 20010db8000000000000000000000002"), payload)
	b[6] = next
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

func udpDatagram(src, dst int, payload []byte) []byte {
	return join(be16(src), be16(dst), be16(8+len(payload)), be16(0), payload)
}

func dhcpMessage(options, file, sname string) []byte {
	b := join(unhex("010106000000123400008000 00000001 00000002 00000003 00000004 010203040506"), make([]byte, 202), unhex("63825363"), unhex(options))
	copy(b[44:], unhex(sname))
	copy(b[108:], unhex(file))
	return b
}

func dhcpFrame(message []byte) []byte {
	return ethFrame(0x0800, ipv4Packet(17, "", udpDatagram(68, 67, message)))
}

const arpRest = "020000000001 0a000001 000000000000 0a000002"

// oddFrames are what the captures lack, whole and then cut, bent and broken.
func oddFrames() (frames []captured) {
	whole := append(oddLinks(), oddPackets()...)
	whole = append(whole, oddDHCP()...)
	for i, b := range whole {
		frames = append(frames, captured{fmt.Sprintf("odd: %d %x", i, b[12:min(len(b), 80)]), b, len(b)})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i, b := range whole {
		for range 40 {
			frames = append(frames, broken(r, i, b))
		}
	}
	return frames
}

// broken cuts a frame, on the wire or by the capture, or changes some bytes.
func broken(r *rand.Rand, i int, b []byte) captured {
	b = append([]byte(nil), b...)
	c := captured{bytes: b, wire: len(b)}
	how := r.IntN(4)
	if how < 2 {
		n := r.IntN(len(b))
		c.bytes = b[:n:n]
		if how == 0 {
			c.wire = n
		}
	} else {
		for range 1 + r.IntN(3) {
			b[12+r.IntN(min(len(b), 90)-12)] = byte(r.IntN(256)) >> r.IntN(8)
		}
	}
	c.from = fmt.Sprintf("odd: %d broken %d of %d: %x", i, len(c.bytes), c.wire, c.bytes[min(12, len(c.bytes)):min(len(c.bytes), 80)])
	return c
}

func oddLinks() [][]byte {
	a := arpPacket(2, arpRest)
	ip := ipv4Packet(17, "", udpDatagram(40000, 67, dhcpMessage("350101ff", "", "")))
	snap := "aaaa03000000"
	return [][]byte{
		ethFrame(0x0806, join(a, make([]byte, 18))),
		llcFrame(snap+"0806", a), llcFrame("aaaa03 0000f8 0800", ip), llcFrame("aaaa03 080007 0800", ip), llcFrame("aaaa0300000c2000", a),
		llcFrame("aaaa0000 000000 0806", a), llcFrame("aaaa03", nil), llcFrame(snap, nil), llcFrame(snap+"0024", a), llcFrame("abaa03 000000 0806", a),
		llcFrame("060603", ip), llcFrame("06060000", ip), llcFrame("989803", a), llcFrame("424203", make([]byte, 35)), llcFrame("ffff", make([]byte, 30)),
		ethFrame(0, join(unhex(snap+"0806"), a)), ethFrame(2, join(unhex(snap+"0806"), a)), ethFrame(7, join(unhex(snap+"0806"), a)),
		ethFrame(0x60, join(unhex(snap+"0806"), a)), ethFrame(1501, a), ethFrame(1535, a), ethFrame(1536, a),
		ethFrame(0x8100, join(unhex("2005 0806"), a)), ethFrame(0x8100, join(unhex("2005 0024"), unhex(snap+"0806"), a)),
		ethFrame(0x8100, join(unhex("0000 05dd"), a)), ethFrame(0x8100, join(unhex("0000 0000"), a)), ethFrame(0x8100, join(unhex("3005 0800"), ip)),
		llcFrame(snap+"8100 2005 0806", a), llcFrame(snap+"8100 2005 0800", ip),
		ethFrame(0x88a8, join(unhex("3005 0806"), a)), ethFrame(0x9100, join(unhex("3005 0806"), a)), ethFrame(0x9200, join(unhex("3005 0806"), a)),
		ethFrame(0x88a8, join(unhex("0001 8100 0002 0806"), a)), ethFrame(0x8100, join(unhex("0001 9100 0002 0806"), a)),
		ethFrame(0x8100, join(unhex(strings.Repeat("0001 8100", 7)), unhex("0001 0806"), a)),
		unhex("ffffffffffff 020000000001 8100"), unhex("ffffffffffff 020000000001 8100 0005"), unhex("ffffffffffff 020000000001 8100 0005 08"),
		ethFrame(0x8035, arpPacket(3, arpRest)), ethFrame(0x0806, arpPacket(1, arpRest)), ethFrame(0x0806, arpPacket(7, arpRest)), ethFrame(0x0806, arpPacket(8, arpRest)),
		ethFrame(0x0806, arpPacket(1, "020000000001 0a000001 ffffffffffff 0a000001")), ethFrame(0x0806, arpPacket(1, "020000000001 0a000001 000000000000 0a000001")),
		ethFrame(0x0806, arpPacket(2, "020000000001 0a000001 000000000000 0a000001")), ethFrame(0x0806, arpPacket(1, "020000000001 00000000 000000000000 0a000001")),
		ethFrame(0x0806, arpPacket(1, "020000000001 00000000 ffffffffffff 0a000001")), ethFrame(0x0806, arpPacket(1, "020000000001 00000000 000000000000 00000000")),
		ethFrame(0x0806, join(unhex("0006 0800 06 04 0002"), unhex(arpRest))), ethFrame(0x0806, join(unhex("0001 0800 05 04 0001"), unhex(arpRest))),
		ethFrame(0x0806, join(unhex("0001 0800 00 04 0001"), unhex(arpRest))), ethFrame(0x0806, join(unhex("0001 0800 06 00 0001"), unhex(arpRest))),
		ethFrame(0x0806, join(unhex("0001 0800 08 04 0001 0200000000010000 00000000 0000000000000000 0a000001"))), ethFrame(0x0806, join(unhex("0001 86dd 06 04 0002"), unhex(arpRest))),
	}
}

func oddPackets() (all [][]byte) {
	plain := udpDatagram(40000, 40001, []byte("12345678"))
	for _, b := range [][]byte{
		ipv4Packet(17, "", plain), ipv4Packet(17, "94040000", plain), ipv4Packet(6, "", plain),
		ipv4Packet(51, "", join(unhex("1104 0000"), make([]byte, 20), plain)),
		ipv4Packet(17, "", udpDatagram(40000, 319, join(unhex("0b02 0040 05"), make([]byte, 59)))),
		ipv4Packet(17, "", udpDatagram(320, 320, join(unhex("0001"), make([]byte, 122)))),
		ipv4Packet(17, "", udpDatagram(17220, 17220, join(unhex("00000001 0280"), make([]byte, 40)))),
		ipv4Packet(17, "", udpDatagram(40000, 4011, dhcpMessage("350101ff", "", ""))),
	} {
		all = append(all, ethFrame(0x0800, join(b, []byte("PADDING"))))
	}
	for offset, n := range map[int][]int{2: {0, 19, 28, 30, 100}, 6: {0x2000, 3, 0x2003, 0xc000}, 24: {0, 7, 8, 9, 100}} {
		for _, n := range n {
			b := ipv4Packet(17, "", plain)
			binary.BigEndian.PutUint16(b[offset:], uint16(n))
			all = append(all, ethFrame(0x0800, b))
		}
	}
	for _, b := range [][]byte{
		ipv6Packet(17, plain), ipv6Packet(17, udpDatagram(68, 67, dhcpMessage("350101ff", "", ""))),
		ipv6Packet(0, join(unhex("1100 010400000000"), plain)), ipv6Packet(60, join(unhex("1101 010c"), make([]byte, 12), plain)),
		ipv6Packet(43, join(unhex("1100 0000 00000000"), plain)), ipv6Packet(44, join(unhex("1100 0001 00000007"), plain)),
		ipv6Packet(44, join(unhex("1100 0008 00000007"), plain)), ipv6Packet(44, join(unhex("1100 0000 00000007"), plain)),
		ipv6Packet(51, join(unhex("1104 0000"), make([]byte, 20), plain)), ipv6Packet(135, join(unhex("1100 0000 0000 0000"), plain)),
		ipv6Packet(0, join(unhex("3c00 010400000000"), unhex("1100 010400000000"), plain)), ipv6Packet(59, plain), ipv6Packet(6, plain),
	} {
		all = append(all, ethFrame(0x86dd, join(b, []byte("PADDING"))))
	}
	return append(all,
		ethFrame(0x88f7, join(unhex("0b02 0040 05"), make([]byte, 59))), ethFrame(0x88f7, join(unhex("1d12 0000 05"), make([]byte, 59))),
		ethFrame(0x22f0, join(unhex("0280"), make([]byte, 40))))
}

func oddDHCP() (all [][]byte) {
	for _, options := range []string{
		"3d07 01 0a0b0c0d0e0f 350101 ff", "3d07 06 0a0b0c0d0e0f 350101 ff", "3d07 02 0a0b0c0d0e0f 350101 ff", "3d07 00 414243444546 350101 ff",
		"3d08 01 0a0b0c0d0e0f10 350101 ff", "3d11 00 11111111111111111111111111111111 350101 ff", "3d04 00 616200 350101 ff", "3d00 350101 ff", "3d01 00 350101 ff",
		"3d13 ff 00000001 0001 0001 01020304 0a0b0c0d0e0f 350101 ff", "3d0f ff 00000001 0003 0001 0a0b0c0d0e0f 350101 ff", "3d0f ff 00000001 0002 00001234 0a0b0c0d 350101 ff",
		"3d0f ff 00000001 0004 00001234 0a0b0c0d 350101 ff", "3d07 ff 00000001 0001 350101 ff", "3d0b ff 00000001 0002 01020304 350101 ff", "3d09 ff 00000001 0003 0001 350101 ff",
		"0c05 6162006364 350101 ff", "0c00 350101 ff", "3203 010203 350101 ff", "3205 0102030405 350101 ff", "0308 01020304 05060708 350101 ff", "0306 010203040506 350101 ff", "0604 01020304 350101 ff",
		"3501 02 3304 00000e10 3604 0a000001 0104 ffffff00 ff", "3502 0102 ff", "0000 350101 00 3204 01020304 0000 ff 0000", "350101", "350101 ff 350102", "350101 0c10 6162", "350101 0c", "",
		"3401 05 350101 ff", "350101 350102 ff",
		"5214 0103616263 0202ffee 050401020304 0603313233 350101 ff", "5213 0b0401020304 0c020102 0a0180 960405060708 350101 ff", "5205 0109616263 350101 ff", "5204 0100 0200 350101 ff",
		"5205 0503010203 350101 ff", "5201 01 350101 ff", "5200 350101 ff", "5206 0002aabb 0100 350101 ff", "5203 0101aa 5203 0201bb 350101 ff", "5206 0101aa 0101bb 350101 ff",
	} {
		all = append(all, dhcpFrame(dhcpMessage(options, "", "")))
	}
	all = append(all,
		dhcpFrame(dhcpMessage("340103 0c0161 ff", "320401020304ff", "350102ff")),
		dhcpFrame(dhcpMessage("0c0161 350101 340101 ff", "320401020304ff", "")),
		dhcpFrame(dhcpMessage("340101 0c0161 350101 ff", "320401020304", "")),
		dhcpFrame(dhcpMessage("34020101 350101 ff", "320401020304ff", "")),
		dhcpFrame(dhcpMessage("340101 350101 ff", "340102ff", "320405060708ff")))
	for offset, values := range map[int][]byte{1: {0, 2, 6, 32}, 2: {0, 1, 5, 7, 15, 16, 17}, 8: {1, 2, 0xff}, 9: {1}, 236: {0}} {
		for _, v := range values {
			m := dhcpMessage("350101ff", "", "")
			m[offset] = v
			all = append(all, dhcpFrame(m))
		}
	}
	return all
}
