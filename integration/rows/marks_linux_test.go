package rows

import (
	"testing"

	"github.com/cilium/ebpf"
)

// marking is a policy that marks the announcement of 192.0.2.1 and lets all pass.
func marking(guard string) string {
	return `policy: marking
guard: [` + guard + `]
rules:
  - {name: mark, match: arp.src.proto_ipv4 == 192.0.2.1, verdict: {mark: 7}}
default: accept
`
}

// TestEgressMarks: tc reads on a frame what netfilter has marked it with before us, or we; and
// netfilter on the underlay what we have marked it with on the overlay.
func TestEgressMarks(t *testing.T) {
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			overlay := w.overlay()
			w.chain("before", "egress", "near", 0, "meta mark set 3")
			w.nft(`table netdev foreign {
	counter underlay { }
	chain underlay {
		type filter hook egress device "near" priority 0
		udp dport 4789 meta mark 7 counter name underlay
	}
}`)
			behind := w.readMarks(w.Ifi[0].Index, ebpf.AttachTCXEgress)
			announce(t, w.Pair, 0, 1, 2)
			announce(t, overlay, 0, 1, 2)
			if a, b, c := behind.of(3), behind.of(7), w.counted("underlay"); a != 2 || b != 0 || c != 0 {
				t.Fatalf("without a guard %d frames are marked 3, %d and %d 7", a, b, c)
			}
			w.guard(marking("{interfaces: [near, overlay], hook: " + hook + "}"))
			announce(t, w.Pair, 0, 1, 2)
			if a, b := behind.of(3)-2, behind.of(7); a != 1 || b != 1 {
				t.Errorf("tc has read netfilter's mark on %d frames and ours on %d, want 1 and 1", a, b)
			}
			announce(t, overlay, 0, 1, 2)
			if n := w.counted("underlay"); n != 1 {
				t.Errorf("netfilter has read our mark on %d frames of the underlay, want 1", n)
			}
		})
	}
}

// TestIngressMarks: netfilter reads what tc has marked a frame with before us, or we.
func TestIngressMarks(t *testing.T) {
	w := newWorld(t)
	w.chain("arrivals", "ingress", "near", 0, "")
	w.chain("ours", "ingress", "near", 1, "meta mark 7 drop")
	w.chain("theirs", "ingress", "near", 2, "meta mark 3 drop")
	stack := w.listen()
	come := func(what string, want ...byte) {
		t.Helper()
		announce(t, w.Pair, 1, 1, 2)
		got := heard(t, stack)
		if len(got) != len(want) {
			t.Errorf("%s: %v come in, want %v", what, got, want)
		}
	}
	come("without a mark", 1, 2)
	w.guard(marking("{interfaces: [near], direction: ingress}"))
	come("with ours", 2)
	w.setMark(w.Ifi[0].Index, ebpf.AttachTCXIngress, 3)
	come("with tc's, and ours on one of them")
	if a, b, c := w.counted("arrivals"), w.counted("ours"), w.counted("theirs"); a != 6 || b != 6 || c != 4 {
		t.Errorf("netfilter has seen %d, %d, %d frames, want 6, 6, 4", a, b, c)
	}
}
