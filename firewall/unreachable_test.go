package firewall

import (
	"fmt"
	"strings"
	"testing"
)

// TestUnreachable: the last rule can never match, by "rule" or by itself, or "".
func TestUnreachable(t *testing.T) {
	const byItself = "no frame can be"
	for _, c := range []struct {
		want  string
		rules []string
	}{
		{"r0", []string{"arp", "arp"}},
		{"r0", []string{"arp", "arp.opcode == 2"}},
		{"r0", []string{"arp", "arp.opcode == 2 && eth.src == 02:00:00:00:00:01"}},
		{"r0", []string{"arp.opcode == 2", "arp.opcode == 2 && eth.src == 02:00:00:00:00:01"}},
		{"", []string{"arp.opcode == 2 && eth.src == 02:00:00:00:00:01", "arp.opcode == 2"}},
		{"r0", []string{"arp.opcode in {1, 2}", "arp.opcode == 2"}},
		{"", []string{"arp.opcode in {1, 2}", "arp.opcode in {2, 3}"}},
		{"r0", []string{"arp.opcode == 1", "arp.opcode == 2", "arp.opcode in {1, 2}"}},
		{"r0", []string{"arp.src.proto_ipv4 == 10.0.0.0/8", "arp.src.proto_ipv4 == 10.1.0.0/16"}},
		{"r0", []string{"arp.src.proto_ipv4 == 10.0.0.0/8", "arp.src.proto_ipv4 == 10.1.2.3 && arp.opcode == 1"}},
		{"", []string{"arp.src.proto_ipv4 == 10.1.0.0/16", "arp.src.proto_ipv4 == 10.0.0.0/8"}},
		{"r0", []string{"ip.addr == 10.0.0.0/8", "ip.addr == 10.0.0.1"}},
		{"", []string{"ip.addr == 10.0.0.1", "ip.src == 10.0.0.1"}}, // true, and not found
		{"r0", []string{"frame.len > 100", "frame.len > 200"}},
		{"", []string{"frame.len > 200", "frame.len > 100"}},
		{"r0", []string{"udp.srcport < 1024", "udp.srcport == 67 && udp"}},
		{"r0", []string{"udp.srcport != 68", "udp.srcport == 67"}},
		{"r0", []string{"udp.srcport in {0..1023}", "udp.srcport == 67"}},
		{"r0", []string{"!arp", "!arp && eth.dst == ff:ff:ff:ff:ff:ff"}},
		{"", []string{"!arp", "arp.opcode == 1"}},
		{"", []string{"dhcp", "dhcp.malformed"}},
		{"r0", []string{"dhcp.option.dhcp in {2, 5}", "dhcp.option.dhcp == 5"}},
		{"", []string{"dhcp.option.dhcp == 2 && dhcp.option.dhcp == 5", "dhcp.option.dhcp == 5"}},
		{byItself, []string{"arp.opcode == 1 && arp.opcode == 2"}},
		{byItself, []string{"arp && ip"}},
		{byItself, []string{"arp.opcode == 1 && udp.dstport == 67"}},
		{byItself, []string{"ip.src == 10.0.0.0/8 && ip.src == 192.0.2.1"}},
		{byItself, []string{"udp.srcport > 100 && udp.srcport < 50"}},
		{byItself, []string{"arp && !arp"}},
		{byItself, []string{"arp.opcode == 1 && !(arp)"}},
		{"", []string{"arp.opcode == 1 || ip"}},
		{"", []string{"ip.addr == 10.0.0.1 && vlan.id == 1", "ip.addr == 10.0.0.1 && vlan.id == 2"}},
		{"", []string{"eth.ig == 0 && eth.ig == 1", "eth.ig == 0"}},
		{"", []string{"ipv6.addr == 2001:db8::/32 && vlan.id == 1 && ipv6.addr == fe80::/10", "ipv6.addr == 2001:db8::/32 && vlan.id == 1 && ipv6.addr == fe80::/64"}},
		{"", []string{"dhcp.option.dhcp == 1 && dhcp.option.dhcp == 2"}}, // occurs more than once
		{"", []string{"ip.addr == 10.0.0.1 && ip.addr == 10.0.0.2"}},
		{"", []string{"vlan.id == 1 && vlan.id == 2"}},
		{"", []string{"ip && udp && dhcp && ip.src != 10.0.0.1"}},
	} {
		src := "policy: p\nrules:\n"
		for i, m := range c.rules {
			src += fmt.Sprintf("  - {name: r%d, match: '%s', verdict: drop}\n", i, m)
		}
		_, warn, err := Parse("p.yaml", []byte(src))
		if err != nil {
			t.Fatalf("%q: %v", c.rules, err)
		}
		var got string
		for _, w := range warn {
			if strings.Contains(w.Msg, fmt.Sprintf("rule \"r%d\" can never match", len(c.rules)-1)) {
				got = w.Msg
			}
		}
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.rules, got, c.want)
		}
	}
}

// TestUnreachableNot: what is not terminal, or is limited, decides nothing.
func TestUnreachableNot(t *testing.T) {
	for _, first := range []string{"verdict: {mark: 1}", "verdict: {duplicate: eth1}", "verdict: drop, limit: {rate: 1/s}"} {
		src := "policy: p\nrules:\n  - {name: a, match: arp, " + first + "}\n  - {name: b, match: arp, verdict: drop}\n"
		_, warn, err := Parse("p.yaml", []byte(src))
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		for _, w := range warn {
			if strings.Contains(w.Msg, "never") {
				t.Errorf("%s: %s", first, w.Msg)
			}
		}
	}
}
