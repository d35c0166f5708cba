package matrix

import (
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// The runs, as the table names them.
const (
	runOpen   = "no guard"
	runBefore = "gate, socket from before"
	runGate   = "gate"
	runTC     = "tc"
)

// TestMatrix: no forged frame gets out by any path, and each honest one arrives once.
// Without a guard all of them do.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	var tb table
	before := w.open(t, paths())
	w.run(t, r, &tb, runOpen, before, nil)
	w.run(t, r, &tb, runBefore, before, &how{})
	w.guard(t, w.roles[0].policy, how{})
	after := w.open(t, paths())
	w.run(t, r, &tb, runGate, after, &how{})
	w.run(t, r, &tb, runTC, after, &how{hook: firewall.HookTC})
	t.Logf("%d paths\n%s", len(paths()), &tb)
	var all table
	for _, hook := range []firewall.Hook{firewall.HookGate, firewall.HookTC} {
		w.run(t, r, &all, hook.String()+", senders: all", w.open(t, some()), &how{hook: hook, all: true})
	}
	t.Log(all.sums())
	t.Run("super-frames", func(t *testing.T) { testSuperFrames(t, w, r) })
}

// open opens the sockets of paths at the near device.
func (w *world) open(t testing.TB, list []path) (senders []*sender) {
	t.Helper()
	return w.openAt(t, 0, w.near, list)
}

// openAt opens the sockets of paths in a namespace. They are closed side by side: each
// waits for the end of an RCU grace period (packet_release).
func (w *world) openAt(t testing.TB, ns int, d device, list []path) (senders []*sender) {
	t.Helper()
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, s := range senders {
			wg.Go(s.close)
		}
		wg.Wait()
	})
	must(t, w.Do(ns, func() error {
		for _, p := range list {
			s, err := p.open(d)
			if err != nil {
				return err
			}
			senders = append(senders, s)
		}
		return nil
	}))
	return senders
}

// run sends the frames of all roles by all senders, guarded or not.
func (w *world) run(t *testing.T, r *receiver, tb *table, name string, senders []*sender, h *how) {
	t.Helper()
	w.unguard(t)
	for _, role := range w.roles {
		if h != nil {
			w.guard(t, role.policy, *h)
		}
		for _, s := range senders {
			sum, err := r.measure(s, role, asSent)
			must(t, err)
			tb.add(name, s.path.kind(), sum)
			what := name + ", " + role.policy.Name + ", " + s.path.String()
			switch {
			case h == nil, h.hook == firewall.HookTC && s.path.bypass: // tc never runs
				sum.expectOpen(t, what)
			default:
				sum.expectClosed(t, what)
			}
		}
	}
}

// testSuperFrames: one UDP header, many datagrams.
func testSuperFrames(t *testing.T, w *world, r *receiver) {
	w.unguard(t)
	out, sent := w.superFramesOut(t, r, 0, w.near, calls, nil)
	// The kernel cuts for those who do not bypass, by the protocol that they claim, which
	// may not be LLDP; the others' are for a device that can (validate_xmit_skb,
	// __dev_direct_xmit).
	if want := sent * 3 / 8; out != want {
		t.Errorf("without a guard %d of %d super-frames get out, want %d", out, sent, want)
	}
	guarded, _ := w.superFramesOut(t, r, 0, w.near, calls, &how{})
	if guarded != 0 {
		t.Errorf("%d super-frames get out", guarded)
	}
	t.Logf("%d super-frames by %d paths: %d of %d get out without a guard, %d with it", len(w.superFrames), sent/len(w.superFrames), out, sent, guarded)
}

// superFramesOut sends them at a device by calls, guarded or not, and counts those of which
// a datagram arrives.
func (w *world) superFramesOut(t *testing.T, r *receiver, ns int, d device, calls []string, h *how) (out, sent int) {
	t.Helper()
	for _, c := range w.superFrames {
		if h != nil {
			w.guard(t, c.Policy, *h)
		}
		for _, s := range w.openAt(t, ns, d, superPaths(calls, c.Forged.GSOSize)) {
			datagrams := 0
			_, err := s.send([][]byte{c.Forged.Bytes})
			must(t, err)
			must(t, r.settle(func(b []byte) {
				if len(b) > 23 && string(b[12:14]) == "\x08\x00" && b[23] == unix.IPPROTO_UDP {
					datagrams++
				}
			}))
			sent, out = sent+1, out+min(1, datagrams)
		}
	}
	return out, sent
}

// superPaths are those with PACKET_VNET_HDR, for IPv4 without options and UDP.
func superPaths(calls []string, size int) (list []path) {
	for _, p := range paths() {
		if p.vnet && slices.Contains(calls, p.call) {
			p.header = vnetHeader{vnetNeedsChecksum, vnetGSOUDPL4, 14 + 20 + 8, uint16(size), 14 + 20, 6}
			list = append(list, p)
		}
	}
	return list
}
