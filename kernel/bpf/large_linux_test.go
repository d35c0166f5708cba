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
		{"tests on options", rules(500, func(i int) string { return fmt.Sprintf("dhcp.option.ip_address_lease_time > %d", i) }), nil},
		{"too many tests on options", rules(600, func(i int) string { return fmt.Sprintf("dhcp.option.ip_address_lease_time > %d", i) }), ErrTooLarge},
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
