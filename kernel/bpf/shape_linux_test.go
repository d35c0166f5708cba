package bpf

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// keyedFields are fields whose values become keys: of one occurrence, of two, of
// one for each tag, in options and in lists of them.
var keyedFields = []string{"eth.src", "eth.addr", "eth.type", "vlan.id", "vlan.etype", "arp.opcode", "arp.src.proto_ipv4", "ip.addr", "ip.src",
	"ip.proto", "ipv6.dst", "ipv6.addr", "udp.port", "udp.length", "dhcp.option.dhcp", "dhcp.option.hostname", "dhcp.option.router", "dhcp.option.type",
	"dhcp.option.value", "dhcp.hw.mac_addr", "dhcp.option.agent_information_option.agent_circuit_id",
	"dhcp.option.agent_information_option.suboption", "dhcp.id", "iface.name", "frame.len"}

// keyed is a policy whose rules differ in the values they compare, but for some.
func (m *maker) keyed(rules int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy: p\nmalformed: match\ndefault: %s\nrules:\n", []string{"accept", "drop"}[m.IntN(2)])
	var templates [][]*filter.Field
	for range 6 {
		var t []*filter.Field
		for range 1 + m.IntN(2) {
			t = append(t, filter.Lookup(keyedFields[m.IntN(len(keyedFields))]))
		}
		templates = append(templates, t)
	}
	var rests []string
	for range 5 {
		rests = append(rests, m.expr(1, nil))
	}
	verdicts := []string{"accept", "drop", "accept", "drop", "{mark: 7}", "{duplicate: lo}"}
	if m.IntN(2) == 0 {
		verdicts = verdicts[:4]
	}
	for i := range rules {
		var and []string
		for _, f := range templates[m.IntN(len(templates))] {
			v, _ := m.look(f)
			e := f.Name + " == " + m.constant(f.Type, f.Bits, v)
			if _, err := filter.Parse(e, nil); err == nil {
				and = append(and, e)
			}
		}
		if m.IntN(3) == 0 || len(and) == 0 {
			and = append(and, rests[m.IntN(len(rests))])
		}
		fmt.Fprintf(&b, "  - {name: r%d, match: '%s', verdict: %s}\n", i, strings.Join(and, " && "), verdicts[m.IntN(len(verdicts))])
	}
	return b.String()
}

// TestShapes holds the look-ups against Classify.
func TestShapes(t *testing.T) {
	pin(t)
	m := newMaker(uint64(fromEnv("POSTERN_SEED", 1)), corpus(t))
	policies, pairs, refused, decided, mapped := 0, 0, 0, 0, 0
	for policies < fromEnv("POSTERN_POLICIES", 150)/3 {
		src := m.keyed(300)
		prog := firewall.Compile(parse(t, src))
		if _, err := Compile(prog, Options{}); errors.Is(err, ErrNotSupported) {
			refused++
			continue
		}
		for _, s := range layoutShapes(prog) {
			if s.mapped {
				mapped++
			}
		}
		p := both(t, src, Options{})
		policies++
		for range 300 {
			f := m.frames[m.IntN(len(m.frames))]
			if m.IntN(3) == 0 {
				f = m.mutate(f)
			}
			if len(f) >= minRun && len(f) <= maxRun && p.want(f, 0).reason == uint32(firewall.ReasonRule) {
				decided++
			}
			if !p.agree("keyed", f, 0) {
				t.Fatal(src)
			}
		}
		pairs += p.compared
		p.engine.Close()
	}
	t.Logf("%d policies, %d more refused, %d shapes in maps, %d (policy, frame) pairs compared, %d decided by a rule", policies, refused, mapped, pairs, decided)
	if decided < pairs/20 || mapped < policies {
		t.Errorf("only %d of %d frames were decided by a rule, %d shapes in maps", decided, pairs, mapped)
	}
}

// announcements is a policy of n rules for n addresses and one for 192.0.2.1.
func announcements(n int) string {
	var b strings.Builder
	b.WriteString("policy: p\nrules:\n")
	for i := range n - 1 {
		fmt.Fprintf(&b, "  - {name: r%d, match: arp.opcode == 2 && arp.src.proto_ipv4 == 10.%d.%d.%d && arp.src.hw_mac == eth.src, verdict: accept}\n", i, i>>16, i>>8&255, i&255)
	}
	b.WriteString("  - {name: mine, match: arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.1 && arp.src.hw_mac == eth.src, verdict: accept}\n")
	return b.String()
}

// announcement is a gratuitous ARP reply for 192.0.2.1.
func announcement() []byte {
	b := make([]byte, 60)
	copy(b, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02\x02\x00\x00\x00\x00\x01\xc0\x00\x02\x01\xff\xff\xff\xff\xff\xff\xc0\x00\x02\x01")
	return b
}

// TestTenThousandRules: the last of 10,000 rules decides, and they load in a second.
func TestTenThousandRules(t *testing.T) {
	pin(t)
	p := both(t, plain, Options{}) // the first program takes longer
	prog := firewall.Compile(parse(t, announcements(10_000)))
	start := time.Now()
	spec, err := Compile(prog, Options{AllSenders: true})
	if err != nil {
		t.Fatal(err)
	}
	compiled := time.Since(start)
	if p.engine, err = spec.Load(); err != nil {
		t.Fatal(err)
	}
	defer p.engine.Close()
	took := time.Since(start)
	got, _ := p.run(announcement(), 0)
	if got.rule != 9999 || got.verdict != uint32(firewall.Accept) {
		t.Errorf("got %+v", got)
	}
	t.Logf("%d instructions, compiled in %v, loaded in %v", len(spec.Instructions[spec.Layout.Variants[0]]), compiled, took-compiled)
	if took > time.Second {
		t.Errorf("10,000 rules took %v", took)
	}
}

// BenchmarkFrame is what a frame costs; the first is BPF_PROG_TEST_RUN's own share,
// by a program that does nothing.
func BenchmarkFrame(b *testing.B) {
	b.Run("nothing", func(b *testing.B) {
		nothing, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}})
		if err != nil {
			cannot(b, "needs root to load eBPF programs")
		}
		defer nothing.Close()
		repeat(b, nothing)
	})
	for _, n := range []int{1, 10, 100, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := both(b, announcements(n), Options{})
			repeat(b, p.engine.prog)
		})
	}
}

func repeat(b *testing.B, prog *ebpf.Program) {
	for b.Loop() {
		start := time.Now()
		if _, err := prog.Run(&ebpf.RunOptions{Data: announcement(), Repeat: 1_000_000}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Nanoseconds())/1e6, "ns/frame")
	}
}
