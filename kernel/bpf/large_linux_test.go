package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/firewall"
)

// rules is a policy of n rules.
func rules(n int, match func(i int) string) string {
	var b strings.Builder
	b.WriteString("policy: p\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, match: '%s', verdict: accept}\n", i, match(i))
	}
	return b.String()
}

// mixed are rules of eight kinds.
func mixed(i int) string {
	hi, lo := i/256, i%256
	return []string{
		fmt.Sprintf("arp.src.proto_ipv4 == 10.0.%d.%d", hi, lo),
		fmt.Sprintf("ip.src == 10.%d.0.0/%d && udp.dstport == %d", i%200, 8+i%24, i),
		fmt.Sprintf("dhcp.option.hostname == \"h%d\" && dhcp.option.dhcp == %d", i, i%8),
		fmt.Sprintf("eth.src[3:3] == 00:%02x:%02x && eth.dst.ig == 0", hi, lo),
		fmt.Sprintf("udp.length > %d && vlan.id == %d", i, i%4096),
		fmt.Sprintf("frame[30:2] == %02x:%02x || ip.ttl == %d", hi, lo, lo),
		fmt.Sprintf("sender.comm == \"c%d\" && ipv6.addr == 2001:db8::%x/%d", i, i, 64+i%64),
		fmt.Sprintf("arp.src.hw_mac != eth.src && arp.dst.proto_ipv4 == 10.1.%d.%d", hi, lo),
	}[i%8]
}

func many(n int, f func(i int) string) (list []string) {
	for i := range n {
		list = append(list, f(i))
	}
	return list
}

// tuple is a policy with one rule and its set.
func tuple(types, match string) string {
	return strings.Replace(rules(1, func(int) string { return match }), "rules:", "sets: {s: {type: ["+types+"]}}\nrules:", 1)
}

// TestLarge: what is large loads and decides, or is refused with the limit it exceeds.
func TestLarge(t *testing.T) {
	pin(t)
	list := func(n int) string {
		var s []string
		for i := range n {
			s = append(s, fmt.Sprint(i*2+10_000))
		}
		return "dhcp.id in {" + strings.Join(s, ",") + "}"
	}
	sets := func(n int) string {
		var b strings.Builder
		b.WriteString("policy: p\nsets:\n")
		for i := range n {
			fmt.Fprintf(&b, "  s%d: {type: ipv4, elements: [192.0.2.%d]}\n", i, i)
		}
		b.WriteString("rules:\n")
		for i := range n {
			fmt.Fprintf(&b, "  - {name: r%d, match: arp.src.proto_ipv4 in @s%d, verdict: accept}\n", i, i)
		}
		return b.String()
	}
	for _, c := range []struct {
		name, src string
		err       error
	}{
		{"rules without keys", rules(10_000, func(i int) string {
			return fmt.Sprintf("frame[28:4] == c0:00:%02x:%02x", (9990-i)>>8&255, (9997-i)&255)
		}), nil},
		{"many shapes", rules(600, func(i int) string {
			return fmt.Sprintf("arp.src.proto_ipv4 == 10.0.0.0/%d && arp.dst.proto_ipv4 == 192.0.0.0/%d", 1+i%24, 1+i/24)
		}), nil},
		{"rests that differ", rules(3000, func(i int) string {
			return fmt.Sprintf("arp.opcode == 2 && arp.src.proto_ipv4 > 192.0.%d.%d", 2+(2999-i)/256, (2999-i)%256)
		}), nil},
		{"a list", rules(1, func(int) string { return list(3000) }), nil},
		{"a list too long", rules(1, func(int) string { return list(8000) }), ErrTooLarge},
		{"tests on options", rules(3000, func(i int) string { return fmt.Sprintf("dhcp.option.ip_address_lease_time > %d", i) }), nil},
		{"too many tests on options", rules(5000, func(i int) string { return fmt.Sprintf("dhcp.option.ip_address_lease_time > %d", i) }), ErrTooLarge},
		{"tests on texts in options", rules(500, func(i int) string { return fmt.Sprintf("dhcp.option.hostname > \"host-%d\"", i) }), nil},
		{"tests on sub-options", rules(500, func(i int) string {
			return fmt.Sprintf("dhcp.option.agent_information_option.subscriber_id > \"s%d\" && dhcp.option.router < 10.0.0.%d", i, i%256)
		}), nil},
		{"options together", rules(64, func(i int) string {
			return fmt.Sprintf("dhcp.option.hostname[%d:2] == dhcp.client_id.undef[1:2]", i)
		}), nil},
		{"too many options together", rules(65, func(i int) string {
			return fmt.Sprintf("dhcp.option.hostname[%d:2] == dhcp.client_id.undef[1:2]", i)
		}), ErrTooLarge},
		{"texts compared", rules(1000, func(i int) string {
			return fmt.Sprintf("%s > dhcp.option.hostname && arp.opcode != %d", []string{"sender.comm", "iface.name"}[i%2], i)
		}), nil},
		{"tuples of tags", tuple("number, number, number", "(vlan.id, vlan.priority, vlan.etype) in @s"), nil},
		{"tuples of too many tags", tuple("number, number, number, number", "(vlan.id, vlan.priority, vlan.etype, vlan.id) in @s"), ErrTooLarge},
		{"a tuple of four in options", tuple("number, ipv4, ipv4, string", "(dhcp.option.type, dhcp.option.requested_ip_address, dhcp.option.agent_information_option.link_selection, dhcp.client_id.undef) in @s"), nil},
		{"64 alternatives", rules(100, func(k int) string {
			return strings.Join(many(64, func(i int) string {
				return fmt.Sprintf("arp.opcode == %d && arp.src.proto_ipv4 == 10.0.%d.%d", i%3, k, i)
			}), " || ")
		}), nil},
		{"64 inequalities", rules(100, func(k int) string {
			return strings.Join(many(64, func(i int) string { return fmt.Sprintf("arp.src.proto_ipv4 != 10.0.%d.%d", k, i) }), " && ")
		}), nil},
		{"a long match", rules(1, func(int) string {
			return strings.Join(many(400, func(i int) string { return fmt.Sprintf("(!(frame[%d:4] < 00:00:00:%02x) && ip.src)", 20+i, i%256) }), " || ")
		}), nil},
		{"64 KiB of a match", rules(1, func(int) string {
			return strings.Join(many(2900, func(i int) string { return fmt.Sprintf("!(ip.id == %d)", i) }), " || ")
		}), ErrTooLarge},
		{"deep, and then or", rules(1, func(int) string {
			return strings.Repeat("(arp || (arp.opcode == 1 && ", 300) + "ip" + strings.Repeat("))", 300)
		}), nil},
		{"mixed", rules(10_000, mixed), nil},
		{"sets", sets(40), nil},
		{"too many sets", sets(80), ErrTooLarge},
		{"deep", rules(1, func(int) string { return strings.Repeat("!(", 400) + "arp" + strings.Repeat(")", 400) }), nil},
	} {
		start := time.Now()
		spec, err := Compile(firewall.Compile(parse(t, c.src)), Options{AllSenders: true})
		if !errors.Is(err, c.err) || c.err == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if err != nil {
			t.Logf("%s: %v", c.name, err)
			continue
		}
		compiled := time.Since(start)
		p := both(t, c.src, Options{})
		got, _ := p.run(gratuitous(7, 1), 0)
		if want := p.want(gratuitous(7, 1), 0); got != want {
			t.Errorf("%s: kernel %v, Classify %v", c.name, got, want)
		}
		t.Logf("%s: %d instructions, %d maps, compiled in %v, all in %v, rule %d", c.name, len(spec.Instructions[spec.Layout.Variants[0]]), len(spec.Maps), compiled, time.Since(start), got.rule)
		p.engine.Close()
	}
}
