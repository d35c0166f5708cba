package filter

import (
	"encoding/binary"
	"testing"

	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// TestMalformed goes through what DESIGN.md calls malformed, and what it does not.
func TestMalformed(t *testing.T) {
	sound := dhcpMessage("350101ff", "", "")
	offer := udpDatagram(67, 68, sound)
	other := udpDatagram(40000, 40001, make([]byte, 8))
	firstOf := func(u []byte) []byte { // the first fragment of a datagram 100 bytes longer
		u = append([]byte(nil), u...)
		binary.BigEndian.PutUint16(u[4:], uint16(len(u)+100))
		ip := ipv4Packet(17, "", u)
		ip[6] = 0x20
		return ethFrame(0x0800, ip)
	}
	laterOf := func(u []byte) []byte {
		ip := ipv4Packet(17, "", u)
		ip[7] = 5
		return ethFrame(0x0800, ip)
	}
	set := func(b []byte, at int, v byte) []byte {
		b = append([]byte(nil), b...)
		b[at] = v
		return b
	}
	discover, arpFrame, plain := dhcpFrame(sound), ethFrame(0x0806, arpPacket(1, arpRest)), ethFrame(0x0800, ipv4Packet(17, "", other))
	tags := unhex("81000001 88a80002 91000003")
	for _, tt := range []struct {
		name  string
		frame []byte
		meta  Meta
		want  Cause
	}{
		{"DHCP", discover, Meta{}, 0},
		{"DHCP with padding", append(discover[:len(discover):len(discover)], 1, 2, 3), Meta{}, 0},
		{"ARP padded to 60", append(arpFrame[:len(arpFrame):len(arpFrame)], make([]byte, 18)...), Meta{}, 0},
		{"RARP", ethFrame(0x8035, arpPacket(3, arpRest)), Meta{}, 0},
		{"checksum 0", discover, Meta{}, 0},
		{"other EtherType", ethFrame(0x88cc, []byte{1}), Meta{}, 0},
		{"first fragment of other UDP", firstOf(other), Meta{}, 0},
		{"later fragment", laterOf(offer), Meta{}, 0},
		{"super-frame of other UDP", plain, Meta{GSOSize: 8}, 0},
		{"BIG TCP", set(set(ethFrame(0x0800, ipv4Packet(6, "", make([]byte, 20))), 16, 0), 17, 0), Meta{GSOSize: 1400}, 0},

		{"no header", nil, Meta{}, FrameCause(frame.CauseShortHeader)},
		{"ARP hw.size 5", set(arpFrame, 18, 5), Meta{}, ARPCause(arp.CauseHWSize)},
		{"ARP proto.size 255", set(arpFrame, 19, 255), Meta{}, ARPCause(arp.CauseProtoSize)},
		{"ARP cut in an address", arpFrame[:30], Meta{}, ARPCause(arp.CauseShort)},
		{"ARP cut by the capture", arpFrame[:30], Meta{WireLen: 60}, ARPCause(arp.CauseShort)},
		{"ARP super-frame", arpFrame, Meta{GSOSize: 8}, CauseGSO},
		{"ARP of two bytes, behind tags", join(arpFrame[:12], tags, unhex("0806 0001")), Meta{}, ARPCause(arp.CauseShort)},
		{"IP total length beyond the frame", discover[:len(discover)-1], Meta{}, FrameCause(frame.CauseIPv4TotalLen)},
		{"the same, cut by the capture", discover[:len(discover)-1], Meta{WireLen: 600}, FrameCause(frame.CauseIPv4TotalLen)},
		{"IP total length 0", set(set(plain, 16, 0), 17, 0), Meta{}, FrameCause(frame.CauseIPv4TotalLen)},
		{"IP total length 0 in a UDP super-frame", set(set(plain, 16, 0), 17, 0), Meta{GSOSize: 8}, FrameCause(frame.CauseIPv4TotalLen)},
		{"IPv6 of version 15 in a TCP super-frame", ethFrame(0x86dd, append([]byte{0xf0, 0, 0, 0, 0, 0, 6, 64}, set(make([]byte, 60), 32, 6)...)), Meta{GSOSize: 1400}, FrameCause(frame.CauseIPVersion)},
		{"UDP length 7", set(set(discover, 38, 0), 39, 7), Meta{}, FrameCause(frame.CauseUDPLen)},
		{"DHCP super-frame", discover, Meta{GSOSize: 252}, CauseGSO},
		{"first fragment of DHCP", firstOf(offer), Meta{}, CauseDHCPFragment},
		{"DHCP short", dhcpFrame(sound[:235]), Meta{}, DHCPCause(dhcp.CauseShort)},
		{"no type, behind tags", join(discover[:12], tags, dhcpFrame(dhcpMessage("0c0161ff", "", ""))[12:]), Meta{}, DHCPCause(dhcp.CauseNoMessageType)},
		{"no type, behind SNAP", llcFrame("aaaa03 000000 0800", ipv4Packet(17, "", udpDatagram(67, 68, dhcpMessage("ff", "", "")))), Meta{}, DHCPCause(dhcp.CauseNoMessageType)},
		{"no type, behind IP options", ethFrame(0x0800, ipv4Packet(17, "94040000", udpDatagram(67, 68, dhcpMessage("ff", "", "")))), Meta{}, DHCPCause(dhcp.CauseNoMessageType)},
		{"no type, behind an authentication header", ethFrame(0x0800, ipv4Packet(51, "", join(unhex("11010000 0000000000000000"), udpDatagram(67, 68, dhcpMessage("ff", "", ""))))), Meta{}, DHCPCause(dhcp.CauseNoMessageType)},
		{"no type, over IPv6", ethFrame(0x86dd, ipv6Packet(60, join(unhex("1100 010400000000"), udpDatagram(67, 68, dhcpMessage("ff", "", ""))))), Meta{}, DHCPCause(dhcp.CauseNoMessageType)},
		{"no type, from another port", ethFrame(0x0800, ipv4Packet(17, "", udpDatagram(1, 68, dhcpMessage("ff", "", "")))), Meta{}, DHCPCause(dhcp.CauseNoMessageType)},
		{"no type, on PXE's port", ethFrame(0x0800, ipv4Packet(17, "", udpDatagram(4011, 5000, dhcpMessage("ff", "", "")))), Meta{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Packet
			p.Decode(tt.frame, &tt.meta)
			if p.Malformed != tt.want {
				t.Errorf("%v, want %v", p.Malformed, tt.want)
			}
			if _, ok := Lookup("frame.malformed").Value(&p, 0); ok != (tt.want != 0) {
				t.Errorf("frame.malformed is %v", ok)
			}
		})
	}
}

// TestMalformedFlags: each flag is for its own layer.
func TestMalformedFlags(t *testing.T) {
	badType := dhcpFrame(dhcpMessage("ff", "", ""))
	badUDP := append([]byte(nil), badType...)
	badUDP[38], badUDP[39] = 0, 7
	for _, tt := range []struct {
		frame []byte
		flags string
	}{
		{badType, "dhcp.malformed"},
		{badUDP, "udp.malformed dhcp.malformed"},
		{ethFrame(0x0806, arpPacket(1, "02")), "arp.malformed"},
		{ethFrame(1510, nil), "eth.malformed"},
		{ethFrame(0x0800, []byte{0x45}), "ip.malformed"},
		{ethFrame(0x86dd, []byte{0x60}), "ipv6.malformed"},
	} {
		var p Packet
		p.Decode(tt.frame, nil)
		got := ""
		for _, name := range []string{"eth", "arp", "ip", "ipv6", "udp", "dhcp"} {
			if v, ok := Lookup(name+".malformed").Value(&p, 0); ok && v.Num == 1 {
				got += " " + name + ".malformed"
			}
		}
		if got != " "+tt.flags {
			t.Errorf("%x: %s, want %s", tt.frame, got, tt.flags)
		}
	}
}

// TestDecodeAgain: nothing of the frame before shows.
func TestDecodeAgain(t *testing.T) {
	var used, fresh Packet
	all := append(oddLinks(), append(oddPackets(), oddDHCP()...)...)
	for i, b := range all {
		used.Decode(all[(i*7+3)%len(all)], &Meta{WireLen: 9999, GSOSize: 3})
		used.Decode(b, nil)
		fresh = Packet{}
		fresh.Decode(b, nil)
		if used.Malformed != fresh.Malformed {
			t.Errorf("%x: %v, then %v", b, fresh.Malformed, used.Malformed)
		}
		for _, f := range Fields() {
			if a, b := occurrences(f, &used), occurrences(f, &fresh); len(a) != len(b) || len(a) > 0 && a[0] != b[0] {
				t.Errorf("%s: %q, then %q", f.Name, b, a)
			}
		}
	}
}

var benchFrames = []struct {
	name  string
	frame []byte
}{
	{"ARP", ethFrame(0x0806, join(arpPacket(1, arpRest), make([]byte, 18)))},
	{"DHCP", dhcpFrame(dhcpMessage("350101 3d0701020000000001 3204c0000201 0c0568656c6c6f 3707 01032a0609000f ff", "", ""))},
	{"VLAN DHCP", join(unhex("ffffffffffff 020000000001 8100 0005"), dhcpFrame(dhcpMessage("350101ff", "", ""))[12:])},
	{"UDP", ethFrame(0x0800, ipv4Packet(17, "", udpDatagram(40000, 40001, make([]byte, 18))))},
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	var p Packet
	m := &Meta{Iface: "eth0"}
	for _, f := range benchFrames {
		if n := testing.AllocsPerRun(100, func() { p.Decode(f.frame, m) }); n != 0 {
			t.Errorf("%s: %v allocations", f.name, n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, f := range benchFrames {
		b.Run(f.name, func(b *testing.B) {
			var p Packet
			for b.Loop() {
				p.Decode(f.frame, nil)
			}
		})
	}
}

func BenchmarkValue(b *testing.B) {
	var p Packet
	p.Decode(benchFrames[1].frame, nil)
	for _, name := range []string{"eth.src", "udp.srcport", "dhcp.option.dhcp", "dhcp.option.hostname", "dhcp.option.router"} {
		b.Run(name, func(b *testing.B) {
			f := Lookup(name)
			for b.Loop() {
				f.Value(&p, 0)
			}
		})
	}
}
