package firewall

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// arpFrame is a gratuitous reply for 192.0.2.x.
func arpFrame(op, x byte) []byte {
	b := make([]byte, 60)
	copy(b, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00")
	b[21] = op
	copy(b[22:], b[6:12])
	copy(b[28:], []byte{192, 0, 2, x})
	copy(b[38:], []byte{192, 0, 2, x})
	return b
}

func mustNew(t testing.TB, src string) *Firewall {
	t.Helper()
	p, _, err := Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatalf("%v", err)
	}
	f, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestClassifyIsLinearWalk holds the look-ups against the reference evaluator
// on policies and frames drawn at random.
func TestClassifyIsLinearWalk(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	exprs := []func() string{
		func() string { return fmt.Sprintf("arp.src.proto_ipv4 == 192.0.2.%d", rnd.IntN(8)) },
		func() string { return fmt.Sprintf("arp.src.proto_ipv4 == 192.0.2.%d/30", rnd.IntN(8)) },
		func() string { return fmt.Sprintf("arp.opcode in {%d, 5..9}", rnd.IntN(4)) },
		func() string { return fmt.Sprintf("arp.opcode >= %d", rnd.IntN(4)) },
		func() string { return fmt.Sprintf("eth.addr == 02:00:00:00:00:0%d", rnd.IntN(3)) },
		func() string { return "arp.src.proto_ipv4 in @s" },
		func() string { return "arp.src.hw_mac == eth.src" },
	}
	var expr func(depth int) string
	expr = func(depth int) string {
		switch n := rnd.IntN(6); {
		case depth == 0 || n < 2:
			return exprs[rnd.IntN(len(exprs))]()
		case n == 2:
			return "!(" + expr(depth-1) + ")"
		case n == 3:
			return "(" + expr(depth-1) + " || " + expr(depth-1) + ")"
		}
		return "(" + expr(depth-1) + " && " + expr(depth-1) + ")"
	}
	verdicts := []string{"accept", "drop", "{mark: 7}", "{forward: x}", "{set: {eth.dst: 02:00:00:00:00:09}}"}
	decided := 0
	for range 300 {
		var b strings.Builder
		b.WriteString("policy: p\nsets: {s: {type: ipv4, elements: [192.0.2.1, 192.0.2.4..192.0.2.6]}}\nrules:\n")
		for i := range 20 {
			fmt.Fprintf(&b, "  - {name: r%d, match: '%s', verdict: %s}\n", i, expr(3), verdicts[rnd.IntN(len(verdicts))])
		}
		f := mustNew(t, b.String())
		for range 40 {
			var p filter.Packet
			p.Decode(arpFrame(byte(rnd.IntN(7)), byte(rnd.IntN(8))), nil)
			twin := p // effects are kept in the packet
			want, _ := f.Explain(&twin)
			if got := f.Classify(&p); !got.Equal(&want) {
				t.Fatalf("%s\ngot %+v\nwant %+v", b.String(), got, want)
			}
			if want.Rule != nil {
				decided++
			}
		}
	}
	if decided < 1000 {
		t.Fatalf("only %d frames were decided by a rule", decided)
	}
}

func TestZeroValueDrops(t *testing.T) {
	var p filter.Packet
	p.Decode(arpFrame(2, 1), nil)
	var none *Firewall
	for _, f := range []*Firewall{none, {}} {
		if d := f.Classify(&p); d.Verdict != Drop || d.Reason != ReasonNoPolicy {
			t.Errorf("%+v", d)
		}
	}
}

func TestLimitAuditReplace(t *testing.T) {
	const src = "policy: p\nrules:\n  - {name: a, match: arp, limit: {rate: 10/s, burst: 2, per: arp.src.proto_ipv4}, verdict: accept}\n"
	f := mustNew(t, src)
	send := func(x byte, now int64) Verdict {
		var p filter.Packet
		p.Decode(arpFrame(2, x), &filter.Meta{Time: now})
		return f.Classify(&p).Verdict
	}
	for i, step := range []struct {
		x    byte
		now  int64
		want Verdict
	}{{1, 1e9, Accept}, {1, 1e9, Accept}, {1, 1e9, Drop}, {2, 1e9, Accept}, {1, 1.1e9, Accept}, {1, 1.1e9, Drop}} {
		if got := send(step.x, step.now); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	p, _, err := Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	if f.Replace(p); send(1, 1.1e9) != Drop {
		t.Error("the limit of a rule that stayed was forgotten")
	}
	if c := f.Counters(); c[0].Frames != 4 || c[1].Frames != 3 {
		t.Errorf("counters %+v", c)
	}
	f = mustNew(t, "policy: p\nmode: audit\n")
	var q filter.Packet
	q.Decode(arpFrame(2, 1), nil)
	if d := f.Classify(&q); d.Verdict != Accept || !d.Audited {
		t.Errorf("audit: %+v", d)
	}
}

func policyOf(n int) string {
	var b strings.Builder
	b.WriteString("policy: p\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, match: arp.opcode == 2 && arp.src.proto_ipv4 == 10.%d.%d.%d, verdict: accept}\n", i, i>>16, i>>8&255, i&255)
	}
	b.WriteString("  - {name: mine, match: arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.1, verdict: accept}\n")
	return b.String()
}

func TestClassifyAllocatesNothing(t *testing.T) {
	f, b := mustNew(t, policyOf(100)), arpFrame(2, 1)
	var p filter.Packet
	if n := testing.AllocsPerRun(100, func() {
		p.Decode(b, nil)
		if f.Classify(&p).Verdict != Accept {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkClassify: rules that differ in the values they compare, and rules each
// of another shape, of which the frame meets the last.
func BenchmarkClassify(b *testing.B) {
	for name, policy := range map[string]func(int) string{"values": policyOf, "shapes": shapesOf} {
		for _, n := range []int{1, 10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				f := mustNew(b, policy(n))
				var p filter.Packet
				p.Decode(arpFrame(2, 1), nil)
				b.ReportAllocs()
				for b.Loop() {
					f.Classify(&p)
				}
			})
		}
	}
}

// shapesOf is n rules, no two of which compare the same bits of the same fields,
// and one for the frame.
func shapesOf(n int) string {
	var b strings.Builder
	b.WriteString("policy: p\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, match: 'arp.src.proto_ipv4 == 10.0.0.0/%d && arp.dst.proto_ipv4 == 10.0.0.0/%d && eth.src[%d:%d] == %s', verdict: drop}\n",
			i, 1+i%32, 1+i/32%32, i/1024%5, 2, "02:ff")
	}
	b.WriteString("  - {name: mine, match: arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.1, verdict: accept}\n")
	return b.String()
}

func TestDiagnostics(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"", "the policy file is empty"},
		{"# nothing\n", "the policy file is empty"},
		{"policy: p\nsets:\n  s:\n    type: [ipv4, port]\n    elements:\n" + strings.Repeat("    - [10.0.0.1..10.255.255.254, 1..65534]\n", 3000), "combinations of prefixes from here on"},
		{"\x00\x01", "not a text file"},
		{"policy: p\nrulez: []\n", `p.yaml:2:1: error: unknown key "rulez" in the policy`},
		{"policy: p\nrules:\n  - {name: a, match: arp.opcod == 2, verdict: drop}\n", "p.yaml:3:22: error: "},
		{"policy: p\nrules:\n  - name: a\n    match: arp.opcode == x\n    verdict: drop\n", "p.yaml:4:26: error: "},
		{"policy: p\nsets: {s: {type: ipv4, elements: [10.0.0.0/33]}}\n", "bad element of set"},
		{"policy: p\nrules:\n  - {name: a, verdict: drop}\n  - {name: a, verdict: drop}\n", `rule name "a" stands twice, first in line 3`},
	} {
		_, _, err := Parse("p.yaml", []byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n%v\nwant %s", c.src, err, c.want)
		}
	}
	_, warn, err := Parse("p.yaml", []byte("policy: p\nrules:\n  - {name: a, match: arp, verdict: drop}\n  - {name: b, match: arp && eth.src == 02:00:00:00:00:01, verdict: accept}\n  - {name: c, match: arp, verdict: accept}\n"))
	if err != nil || len(warn) == 0 || !strings.Contains(warn.Error(), `rule "c" can never match: rule "a" in line 3`) {
		t.Errorf("%v %v", warn, err)
	}
}

// TestSelectiveKey: of two fields that may occur often, that one is looked up which tells
// rules apart.
func TestSelectiveKey(t *testing.T) {
	var b strings.Builder
	b.WriteString("policy: p\nrules:\n")
	for i := range 200 {
		fmt.Fprintf(&b, "  - {name: r%d, match: dhcp.option.dhcp == 3 && dhcp.option.requested_ip_address == 192.0.2.%d, verdict: accept}\n", i, i)
	}
	p, _, err := Parse("p.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if s := Compile(p).Shapes; len(s) != 1 || len(s[0].Entries) != 200 {
		t.Errorf("%d shapes, the first with %d keys", len(s), len(s[0].Entries))
	}
}
