package bpf

import (
	"errors"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
)

// TestOlderKernels: what a kernel does not tell is refused by name, or done another way; the program loads
// without it and decides the same.
func TestOlderKernels(t *testing.T) {
	pin(t)
	for name, o := range map[string]Options{
		"no helper for who runs": {anonymous: true},
		"no BTF":                 {skb: skbLayout{bit: 1}},
		"no cast to sk_buff":     {skb: func() skbLayout { l := kernelSKB(); l.cast = 0; return l }()},
	} {
		for _, o := range []Options{o, {anonymous: o.anonymous, skb: o.skb, linear: -1}} {
			p := both(t, plain, o)
			for _, f := range corpus(t)[:3000] {
				if !p.agree(name, f, 0) {
					t.FailNow()
				}
			}
		}
		o.Gate, o.PerInterface, o.Also = true, true, []Variant{{}, {AllSenders: true}}
		spec, err := Compile(firewall.Compile(parse(t, plain)), o)
		if err != nil {
			t.Fatal(err)
		}
		e, err := spec.Load()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		e.Close()
	}
	for _, field := range []string{"sender.pid == 1", "sender.uid == 0", `sender.comm == "x"`} {
		src := "policy: p\nrules: [{name: who, match: '" + field + "', verdict: accept}]\n"
		_, err := Compile(firewall.Compile(parse(t, src)), Options{anonymous: true})
		if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), `rule "who"`) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
