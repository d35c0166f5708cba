package rows

import (
	"maps"
	"testing"

	"github.com/cilium/ebpf"
)

// marking is a policy that marks the announcement of 192.0.2.1, refuses that of 192.0.2.3 if it comes
// with somebody else's mark, and lets all others pass.
func marking(guard string) string {
	return `policy: marking
guard: [` + guard + `]
rules:
  - {name: mark, match: arp.src.proto_ipv4 == 192.0.2.1, verdict: {mark: 7}}
  - {name: marked, match: iface.mark == 3 && arp.src.proto_ipv4 == 192.0.2.3, verdict: drop}
default: accept
`
}

// TestEgressMarks: we read what netfilter has marked a frame with, tc behind us reads that or our own
// mark, and netfilter on the underlay what we have marked a frame with on the overlay.
func TestEgressMarks(t *testing.T) {
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			overlay := w.overlay()
			w.nft(`table netdev foreign {
	counter underlay { }
	chain underlay {
		type filter hook egress device "near" priority 0
		udp dport 4789 meta mark 7 counter name underlay
	}
}`)
			behind, r := w.readMarks(w.Ifi[0].Index, ebpf.AttachTCXEgress), receive(t, w.Pair)
			expect := func(when string, arrive map[byte]int, marks map[uint32]int, underlay int) {
				t.Helper()
				announce(t, w.Pair, 0, 1, 2, 3)
				if got := arrived(t, r); !maps.Equal(got, arrive) {
					t.Errorf("%s: %v arrive, want %v", when, got, arrive)
				}
				for mark, n := range marks {
					if got := behind.of(mark); got != n {
						t.Errorf("%s: tc has read the mark %d on %d frames, want %d", when, mark, got, n)
					}
				}
				announce(t, overlay, 0, 1, 2)
				if got := w.counted("underlay"); got != underlay {
					t.Errorf("%s: netfilter has read our mark on %d frames of the underlay, want %d", when, got, underlay)
				}
				must(t, r.Drain(map[string]int{}))
			}
			expect("without a guard", map[byte]int{1: 1, 2: 1, 3: 1}, map[uint32]int{0: 3}, 0)
			w.guard(marking("{interfaces: [near, overlay], hook: " + hook + "}"))
			expect("guarded", map[byte]int{1: 1, 2: 1, 3: 1}, map[uint32]int{0: 3 + 2, 7: 1}, 1)
			w.chain("before", "egress", "near", 0, "meta mark set 3")
			expect("marked by netfilter", map[byte]int{1: 1, 2: 1}, map[uint32]int{0: 3 + 2, 7: 1 + 1, 3: 1}, 2)
		})
	}
}

// TestIngressMarks: we read what tc has marked a frame with, and netfilter behind us reads that or our
// own mark.
func TestIngressMarks(t *testing.T) {
	w := newWorld(t)
	w.chain("ours", "ingress", "near", 1, "meta mark 7 drop")
	w.chain("theirs", "ingress", "near", 2, "meta mark 3 drop")
	stack := w.listen()
	expect := func(when string, want map[byte]int, ours, theirs int) {
		t.Helper()
		announce(t, w.Pair, 1, 1, 2, 3)
		if got := heard(t, stack); !maps.Equal(got, want) {
			t.Errorf("%s: %v come in, want %v", when, got, want)
		}
		if a, b := w.counted("ours"), w.counted("theirs"); a != ours || b != theirs {
			t.Errorf("%s: netfilter's chains have seen %d and %d frames, want %d and %d", when, a, b, ours, theirs)
		}
	}
	expect("without a mark", map[byte]int{1: 1, 2: 1, 3: 1}, 3, 3)
	w.guard(marking("{interfaces: [near], direction: ingress}"))
	expect("with ours", map[byte]int{2: 1, 3: 1}, 3+3, 3+2)
	w.setMark(w.Ifi[0].Index, ebpf.AttachTCXIngress, 3)
	expect("with tc's, and ours on one of them", map[byte]int{}, 6+2, 5+1)
}
