package bpf

import (
	"fmt"
	"strings"
	"testing"
)

// manyRules accepts the ARP packets of n sender addresses.
func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("policy: p\nrules:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, match: arp.src.proto_ipv4 == 10.%d.%d.%d, verdict: accept}\n", i, i>>16, i>>8&255, i&255)
	}
	return b.String()
}

// BenchmarkProgram measures the program alone, by BPF_PROG_TEST_RUN: the fastest of many runs, which
// a busy machine hardly touches. b.N does not matter: run it with -benchtime 1x. What
// a frame costs on its way is measured by integration/bench.
func BenchmarkProgram(b *testing.B) {
	arp := make([]byte, 60)
	copy(arp, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01\x0a\x00\x00\x00")
	foreign := append([]byte(nil), arp...)
	foreign[28] = 192
	for _, n := range []int{1, 10, 100, 10_000} {
		for name, frame := range map[string][]byte{"accepted": arp, "refused": foreign} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				p := both(b, manyRules(n), Options{})
				best := 1e9
				for range 100 {
					_, took, err := p.engine.prog.Benchmark(frame, 10_000, nil)
					if err != nil {
						b.Fatal(err)
					}
					best = min(best, float64(took.Nanoseconds()))
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(best, "ns/frame")
			})
		}
	}
}
