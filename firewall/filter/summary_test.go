package filter

import (
	"encoding/hex"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const (
		macs    = "ffffffffffff" + "020000000001"
		request = "0806" + "0001080006040001" + "020000000001" + "c0000202" + "000000000000" + "c0000201"
		reply   = "0806" + "0001080006040002" + "020000000099" + "c0000201" + "020000000002" + "c0000202"
		ip      = "0800" + "4500001c00000000ff110000" + "0a000001" + "0a000002"
		offer   = "0800" + "4500011600000000ff1100000a000001ffffffff" + "0043004401020000" +
			"02010600deadbeef00000000" + "00000000" + "0a000005" + "00000000" + "00000000" + "02aabbccddee"
		options = "63825363" + "350102" + "36040a000001" + "ff"
	)
	for _, tt := range []struct{ name, hex, want string }{
		{"request", macs + request, "ARP who-has 192.0.2.1 tell 192.0.2.2, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"tagged reply, another's address", macs + "81000005" + "81000000" + reply,
			"vlan 5, vlan 0, ARP reply 192.0.2.1 is-at 02:00:00:00:00:99, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"request that hides its sender", macs + strings.Replace(request, "0604000102", "0604000106", 1),
			"ARP who-has 192.0.2.1 tell 192.0.2.2 at 06:00:00:00:00:01, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"cut", macs + request[:24], "ARP, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff [malformed: short ARP packet]"},
		{"UDP", macs + ip + "0035003600080000", "UDP 10.0.0.1.53 > 10.0.0.2.54 length 8, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"TCP", macs + strings.Replace(ip, "ff11", "ff06", 1) + "0035003600080000",
			"IPv4 10.0.0.1 > 10.0.0.2 proto 6, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"IPv6", macs + "86dd" + "6000000000003aff" + "fe80" + strings.Repeat("00", 13) + "01" + "ff02" + strings.Repeat("00", 13) + "02",
			"IPv6 fe80::1 > ff02::2 proto 58, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"offer", macs + offer + strings.Repeat("00", 10+192) + options,
			"DHCP OFFER 10.0.0.5 server 10.0.0.1 for 02:aa:bb:cc:dd:ee xid 0xdeadbeef, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"LLDP", macs + "88cc" + "0000", "0x88cc, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"STP", macs + "0003424203", "802.3 length 3, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"CDP", macs + "000a" + "aaaa0300000c20000000", "SNAP oui 0x00000c, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff"},
		{"nothing", "", "frame of 0 bytes [malformed: short Ethernet header]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			var p Packet
			p.Decode(b, nil)
			if got := p.Summary(); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
			buf := make([]byte, 0, 512)
			if n := testing.AllocsPerRun(10, func() { p.AppendSummary(buf) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func FuzzSummary(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		p.Decode(b, nil)
		if s := p.Summary(); s == "" || strings.ContainsAny(s, "\n\x00") {
			t.Errorf("%q", s)
		}
	})
}
