package rows

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// TestEgressOrder: what goes out is judged by netfilter first, other people's chains before
// ours whatever their priority, and by tc afterwards. Each sees what the one before
// let through, and sees it once.
func TestEgressOrder(t *testing.T) {
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			w.chain("first", "egress", "near", -10, "arp saddr ip 192.0.2.1 drop")
			w.chain("filter", "egress", "near", 0, "")
			w.chain("last", "egress", "near", 1000, "")
			behind := w.readMarks(w.Ifi[0].Index, ebpf.AttachTCXEgress)
			r := receive(t, w.Pair)
			announce(t, w.Pair, 0, 1, 2, 3)
			if got := arrived(t, r); !maps.Equal(got, map[byte]int{2: 1, 3: 1}) || behind.of(0) != 2 {
				t.Fatalf("without a guard %v arrive", got)
			}
			w.guard(`policy: order
guard: [{interfaces: [near]}]
hook: ` + hook + `
rules:
  - {name: ours, match: arp.src.proto_ipv4 == 192.0.2.2, verdict: drop}
  - {name: others, match: arp.src.proto_ipv4 == 192.0.2.0/24, verdict: accept}
default: accept
`)
			announce(t, w.Pair, 0, 1, 2, 3)
			if got := arrived(t, r); !maps.Equal(got, map[byte]int{3: 1}) {
				t.Errorf("%v arrive, want 3", got)
			}
			ours := w.matched()
			for layer, n := range map[string][2]int{
				"netfilter, first":  {w.counted("first"), 3 + 3},
				"netfilter, filter": {w.counted("filter"), 2 + 2},
				"netfilter, last":   {w.counted("last"), 2 + 2},
				"postern":           {ours["ours"] + ours["others"], 2},
				"tc behind it":      {behind.of(0), 2 + 1},
			} {
				if n[0] != n[1] {
					t.Errorf("%s has seen %d frames, want %d", layer, n[0], n[1])
				}
			}
		})
	}
}

// TestIngressOrder: what comes in is judged by tc first, and so by us, and by netfilter
// afterwards.
func TestIngressOrder(t *testing.T) {
	w := newWorld(t)
	w.chain("filter", "ingress", "near", -500, "arp saddr ip 192.0.2.2 drop")
	stack := w.listen()
	announce(t, w.Pair, 1, 1, 2, 3)
	if got := heard(t, stack); !maps.Equal(got, map[byte]int{1: 1, 3: 1}) {
		t.Fatalf("without a guard %v come in", got)
	}
	w.guard(`policy: order
guard: [{interfaces: [near], direction: ingress}]
rules:
  - {name: ours, match: arp.src.proto_ipv4 == 192.0.2.1, verdict: drop}
  - {name: others, match: arp.src.proto_ipv4 == 192.0.2.0/24, verdict: accept}
default: accept
`)
	announce(t, w.Pair, 1, 1, 2, 3)
	if got := heard(t, stack); !maps.Equal(got, map[byte]int{3: 1}) {
		t.Errorf("%v come in, want 3", got)
	}
	// veth hands the sender's socket on; but who sent it cannot be known here.
	if ev := w.next(); ev.Rule != "ours" || ev.HasSender {
		t.Errorf("the refusal names rule %s, sender %+v", ev.Rule, ev.Sender)
	}
	if n := w.matched(); n["ours"] != 1 || n["others"] != 2 {
		t.Errorf("postern has refused %d frames and let %d pass, want 1 and 2", n["ours"], n["others"])
	}
	if n := w.counted("filter"); n != 3+2 {
		t.Errorf("netfilter has seen %d frames, want 5", n)
	}
}

// listen opens a socket that gets the ARP packets of near which came through both layers.
func (w *world) listen() (c *packet.Conn) {
	w.t.Helper()
	must(w.t, w.Do(0, func() (err error) {
		c, err = packet.Listen(w.Ifi[0], packet.Raw, unix.ETH_P_ARP, nil)
		return err
	}))
	w.t.Cleanup(func() { c.Close() })
	return c
}

// heard is which announcements a socket has got.
func heard(t testing.TB, c *packet.Conn) map[byte]int {
	t.Helper()
	counts := map[byte]int{}
	read(t, c, func(frame []byte) {
		if x, ok := announced(frame); ok {
			counts[x]++
		}
	})
	return counts
}

// read calls fn with what a socket gets, until nothing came for a while.
func read(t testing.TB, c *packet.Conn, fn func(frame []byte)) {
	t.Helper()
	for b := make([]byte, 2048); ; {
		must(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		n, _, err := c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		must(t, err)
		fn(b[:n])
	}
}

// TestRedirected: netfilter does not judge again what tc redirects, ours or anybody's; what
// netfilter itself forwards it does, and so does tc what either leads to a device.
func TestRedirected(t *testing.T) {
	const policy = `policy: redirected
guard: [{interfaces: [near], hook: %s}]
rules:
  - {name: away, match: arp, verdict: {forward: out}}
`
	for name, forward := range map[string]func(w *world){
		"tc":        func(w *world) { w.guard(fmt.Sprintf(policy, "tc")) },
		"gate":      func(w *world) { w.guard(fmt.Sprintf(policy, "gate")) },
		"nft's fwd": func(w *world) { w.chain("away", "egress", "near", 0, `fwd to "out"`) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			out := w.join("out", "out")
			w.chain("netfilter", "egress", "out", 0, "")
			tc := w.readMarks(out.Ifi[0].Index, ebpf.AttachTCXEgress)
			r := receive(t, out)
			forward(w)
			announce(t, out, 0, 1)
			if a, b := w.counted("netfilter"), tc.of(0); a != 1 || b != 1 {
				t.Fatalf("of a frame sent there netfilter has seen %d, tc %d", a, b)
			}
			announce(t, w.Pair, 0, 2, 3)
			if got := arrived(t, r); !maps.Equal(got, map[byte]int{1: 1, 2: 1, 3: 1}) {
				t.Errorf("%v arrive", got)
			}
			again := 0
			if name == "nft's fwd" {
				again = 2
			}
			if a, b := w.counted("netfilter"), tc.of(0); a != 1+again || b != 1+2 {
				t.Errorf("of 2 frames sent on netfilter has seen %d, tc %d, want %d and 2", a-1, b-1, again)
			}
		})
	}
}
