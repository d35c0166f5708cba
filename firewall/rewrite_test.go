package firewall

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestRewrite(t *testing.T) {
	const arp = "0001080006040002 020000000001 c0000201 020000000002 c0000202"
	const arp2 = "0001080006040002 02000000000a c0000209 020000000002 c0000202"
	for _, c := range []struct{ name, set, in, want string }{
		{"eth.dst", "{eth.dst: 02:00:00:00:00:09}", "ffffffffffff 020000000001 88cc 00", "020000000009 020000000001 88cc 00"},
		{"plain", "{arp.src.hw_mac: 02:00:00:00:00:0a, arp.src.proto_ipv4: 192.0.2.9}",
			"ffffffffffff 020000000001 0806" + arp, "ffffffffffff 020000000001 0806" + arp2},
		{"two tags", "{arp.src.hw_mac: 02:00:00:00:00:0a, arp.src.proto_ipv4: 192.0.2.9}",
			"ffffffffffff 020000000001 88a80005 81000006 0806" + arp, "ffffffffffff 020000000001 88a80005 81000006 0806" + arp2},
		{"SNAP", "{arp.src.hw_mac: 02:00:00:00:00:0a, arp.src.proto_ipv4: 192.0.2.9}",
			"ffffffffffff 020000000001 0024 aaaa03 000000 0806" + arp, "ffffffffffff 020000000001 0024 aaaa03 000000 0806" + arp2},
		{"no ARP", "{eth.dst: 02:00:00:00:00:09, arp.src.proto_ipv4: 192.0.2.9}", "ffffffffffff 020000000001 88cc 00", ""},
		{"ARP cut", "{arp.src.proto_ipv4: 192.0.2.9}", "ffffffffffff 020000000001 0806" + arp[:40], ""},
		{"hw.size", "{arp.src.proto_ipv4: 192.0.2.9}", "ffffffffffff 020000000001 0806" + strings.Replace(arp, "0604", "0504", 1), ""},
		{"short", "{eth.dst: 02:00:00:00:00:09}", "ffffffffffff 0200", ""},
	} {
		p, _, err := Parse("p.yaml", []byte("policy: p\nrules:\n  - {name: a, verdict: {set: "+c.set+"}}\n"))
		if err != nil {
			t.Fatal(err)
		}
		in, _ := hex.DecodeString(strings.ReplaceAll(c.in, " ", ""))
		want, _ := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
		got := bytes.Clone(in)
		ok := Rewrite(got, p.Rules[0].Set)
		if ok != (c.want != "") {
			t.Errorf("%s: %v", c.name, ok)
		}
		if !ok {
			want = in
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", c.name, got, want)
		}
	}
}
