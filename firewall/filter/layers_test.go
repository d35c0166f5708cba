package filter

import (
	"strings"
	"testing"
)

// TestLayers: a field comes with its protocol, and some protocols never come
// together. The search for rules that can never match relies on it.
func TestLayers(t *testing.T) {
	frames := oddFrames()
	seen := map[string]bool{}
	for _, c := range frames {
		var p Packet
		p.Decode(c.bytes, &Meta{WireLen: c.wire})
		has := map[string]bool{}
		fields := Fields()
		for _, f := range fields {
			if _, ok := f.Value(&p, 0); ok {
				has[f.Name], seen[f.Name] = true, true
			}
		}
		for name := range has {
			proto, rest, found := strings.Cut(name, ".")
			if proto == "sender" || proto == "iface" || strings.HasSuffix(rest, "malformed") || !found || name == "ip.version" {
				continue
			}
			if !has[proto] {
				t.Errorf("%s: %s without %s", c.from, name, proto)
			}
		}
		for _, pair := range [][2]string{{"arp", "ip"}, {"arp", "ipv6"}, {"arp", "udp"}, {"arp", "dhcp"}, {"ip", "ipv6"}} {
			if has[pair[0]] && has[pair[1]] {
				t.Fatalf("%s: %s and %s", c.from, pair[0], pair[1])
			}
		}
	}
	for _, name := range []string{"arp", "ip", "ipv6", "udp", "dhcp", "vlan", "llc"} {
		if !seen[name] {
			t.Errorf("no frame has %s", name)
		}
	}
}
