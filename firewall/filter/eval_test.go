package filter

import (
	"encoding/hex"
	"strings"
	"testing"
)

// setOf is a set of keys, spelt for the tests.
type setOf map[[2]uint64]bool

func (s setOf) Contains(key []Value) bool {
	var k [2]uint64
	for i := range key {
		k[i] = key[i].Num
	}
	return s[k]
}

// Two frames: a gratuitous ARP request under two VLAN tags, and a UDP datagram.
const (
	arpFrame = "ffffffffffff 020000000001 81000005 81000007 0806 0001 0800 06 04 0001 020000000001 c0000201 000000000000 c0000201"
	udpFrame = "020000000002 020000000001 0800 4500001e 00010000 40110000 c0000201 c6336401 0044 0043 000a 0000 abcd"
)

func decode(t testing.TB, s string) *Packet {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	p := new(Packet)
	p.Decode(b, nil)
	return p
}

var live = Sets{
	"vips":   setOf{{0xc0000201}: true},
	"leases": setOf{{0x020000000001, 0xc0000201}: true},
}

func TestEval(t *testing.T) {
	for _, tt := range []struct {
		src      string
		arp, udp bool
	}{
		{"arp", true, false},
		{"udp", false, true},
		{"arp || udp", true, true},
		{"arp && udp", false, false},
		{"!arp", false, true},
		// several occurrences: any, and for != all
		{"vlan.id == 7", true, false},
		{"vlan.id != 6", true, false},
		{"vlan.id != 7", false, false},
		{"!(vlan.id == 7)", false, true},
		{"vlan.id > 6", true, false},
		{"vlan.id in {6..8}", true, false},
		{"vlan.id not in {6..8}", false, true},
		{"udp.port == 67", false, true},
		{"udp.port != 67", false, false},
		// an absent field
		{"udp.srcport != 1", false, true},
		{"udp.srcport < 65535", false, true},
		{"udp.srcport not in {1}", true, true},
		{"udp.srcport == udp.srcport", false, true},
		{"udp.srcport != udp.dstport", false, true},
		{"ip.src == ip.dst", false, false},
		{"vlan.id == vlan.id", true, false},
		{"vlan.id != vlan.id", false, false},
		// masks
		{"vlan.id & 2", true, false},
		{"vlan.id & 8", false, false},
		{"vlan.id & 6 == 6", true, false},
		{"vlan.id & 6 != 6", false, false},
		{"udp.srcport & 0xfc == 68", false, true},
		{"ip.src & 255.0.0.0 == 192.0.0.0", false, true},
		{"eth.dst & 01:00:00:00:00:00", true, false},
		{"eth.dst[0] & 01", true, false},
		{"eth.src[0:2] & 0f:ff == 02:00", true, true},
		// addresses
		{"eth.addr == 02:00:00:00:00:02", false, true},
		{"eth.addr != 02:00:00:00:00:02", true, false},
		{"eth.src > 02:00:00:00:00:00", true, true},
		{"eth.dst in {02:00:00:00:00:00..02:00:00:00:00:ff}", false, true},
		{"arp.src.proto_ipv4 == 192.0.2.0/24", true, false},
		{"arp.src.proto_ipv4 != 192.0.2.0/24", false, false},
		{"ip.addr == 198.51.0.0/16", false, true},
		{"ip.addr == 0.0.0.0/0", false, true},
		{"ip.src in {10.0.0.0/8, 192.0.2.1}", false, true},
		{"ip.src in {192.0.2.2..192.0.2.9}", false, false},
		{"arp.src.hw_mac == eth.src", true, false},
		{"arp.src.hw_mac == eth.addr", true, false},
		{"arp.src.hw_mac != eth.addr", false, false},
		// slices
		{"frame[12:2] == 81:00", true, false},
		{"frame[12:2] < 81:00", false, true},
		{"eth.src[0:3] == 02:00:00", true, true},
		{"eth.src[-1] == 01", true, true},
		{"eth.src[4-5] == 00:01", true, true},
		{"eth.src[6:]", false, false},
		{"eth.src[5:2]", false, false},
		{"eth.src[5:2] != 00:00", false, false},
		{"eth.src[-7:1]", false, false},
		{"eth.dst[0:3] in {ff:ff:ff, 01:00:5e}", true, false},
		{"frame[6:6] == eth.src", true, true},
		{"eth.src[0:2] == eth.dst[0:2]", false, true},
		{"frame[-2:] == ab:cd", false, true},
		// bytes: the shorter first
		{"frame > 00", true, true},
		{"frame[0:] == ff", false, false},
		// sets
		{"arp.src.proto_ipv4 in @vips", true, false},
		{"ip.addr in @vips", false, true},
		{"ip.addr not in @vips", true, false},
		{"(arp.src.hw_mac, arp.src.proto_ipv4) in @leases", true, false},
		{"(eth.addr, ip.addr) in @leases", false, true},
		{"eth.src[0:3] in @ouis", false, false}, // declared, but not there
	} {
		x, err := Parse(tt.src, sets)
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		arp, udp := Eval(x, decode(t, arpFrame), live), Eval(x, decode(t, udpFrame), live)
		if arp != tt.arp || udp != tt.udp {
			t.Errorf("%s: ARP %v, UDP %v", tt.src, arp, udp)
		}
	}
}

func TestEvalIPv6Prefix(t *testing.T) {
	// The value of 2001:db8:8000::1, against prefixes that end within a byte.
	v := Value{Bytes: []byte("\x20\x01\x0d\xb8\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")}
	for text, want := range map[string]bool{
		"2001:db8:8000::1": true, "2001:db8::/32": true, "2001:db8:8000::/33": true, "2001:db8::/33": false,
		"::/0": true, "2001:db8:8000::1/128": true, "2001:db8:8000::/128": false,
	} {
		c, err := ParseConst(text, TypeIPv6, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.compare(v, Eq); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestEvalAllocs(t *testing.T) {
	arp, udp := decode(t, arpFrame), decode(t, udpFrame)
	for _, tt := range valid {
		x, err := Parse(tt.src, sets)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { Eval(x, arp, live); Eval(x, udp, live) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.src, n)
		}
	}
}
