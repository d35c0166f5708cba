package rows

import (
	"fmt"
	"maps"
	"testing"

	"github.com/postern-fw/postern/firewall"
)

// TestForward: a frame that a rule sends on to another guarded device is judged there
// as one of that device's.
func TestForward(t *testing.T) {
	const policy = `policy: forward
guard:
  - {interfaces: [near], hook: %s}
  - {interfaces: [out], hook: %s}
rules:
  - {name: refused-there, match: iface.name == out && arp.src.proto_ipv4 == 192.0.2.2, verdict: drop}
  - {name: there, match: iface.name == out && eth.src != iface.mac, verdict: accept}
  - {name: own, match: iface.name == out, verdict: accept}
  - {name: away, match: arp, verdict: {forward: out}}
`
	for _, hooks := range [][2]string{{"gate", "gate"}, {"tc", "tc"}, {"gate", "tc"}, {"tc", "gate"}} {
		t.Run(hooks[0]+" to "+hooks[1], func(t *testing.T) {
			w := newWorld(t)
			out := w.join("out", "out")
			far, there := receive(t, w.Pair), receive(t, out)
			announce(t, w.Pair, 0, 1, 2)
			announce(t, out, 0, 2)
			if got := arrived(t, far); !maps.Equal(got, map[byte]int{1: 1, 2: 1}) {
				t.Fatalf("without a guard %v arrive", got)
			}
			if got := arrived(t, there); !maps.Equal(got, map[byte]int{2: 1}) {
				t.Fatalf("without a guard %v arrive at the other device", got)
			}
			w.guard(fmt.Sprintf(policy, hooks[0], hooks[1]))
			announce(t, w.Pair, 0, 1, 2)
			announce(t, out, 0, 3)
			if got := arrived(t, far); len(got) > 0 {
				t.Errorf("%v were sent on and arrive all the same", got)
			}
			if got := arrived(t, there); !maps.Equal(got, map[byte]int{1: 1, 3: 1}) {
				t.Errorf("%v arrive, want 1 and 3", got)
			}
			for rule, want := range map[string]int{"away": 2, "refused-there": 1, "there": 1, "own": 1} {
				if n := w.matched()[rule]; n != want {
					t.Errorf("rule %s matched %d frames, want %d", rule, n, want)
				}
			}
		})
	}
}

// TestForwardInCircles: a frame that two devices send to each other comes to an end.
func TestForwardInCircles(t *testing.T) {
	const policy = `policy: circles
guard: [{interfaces: [near, out]}]
hook: %s
rules:
  - {name: away, match: arp && iface.name == near, verdict: {forward: out}}
  - {name: back, match: arp && iface.name == out, verdict: {forward: near}}
`
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			out := w.join("out", "out")
			w.guard(fmt.Sprintf(policy, hook))
			far, there := receive(t, w.Pair), receive(t, out)
			announce(t, w.Pair, 0, 1)
			if ev := w.next(); ev.Reason != firewall.ReasonRecursion || ev.Verdict != firewall.Drop {
				t.Errorf("the frame ends with %v, %v, want %v", ev.Verdict, ev.Reason, firewall.ReasonRecursion)
			}
			if a, b := arrived(t, far), arrived(t, there); len(a)+len(b) > 0 {
				t.Errorf("%v and %v arrive", a, b)
			}
			if n := w.matched(); n["away"] != 2 || n["back"] != 2 {
				t.Errorf("sent on %d and %d times, want 2 and 2", n["away"], n["back"])
			}
		})
	}
}
