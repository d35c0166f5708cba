package bpf

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
)

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
	e, err := spec.Load()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	took := time.Since(start)
	p.use(e)
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
