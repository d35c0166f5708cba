package matrix

import (
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

// testSuperFrames: one UDP header, many datagrams. What arrives without a guard are the
// datagrams.
func testSuperFrames(t *testing.T, w *world, r *receiver) {
	if len(w.superFrames) == 0 {
		t.Fatal("no super-frames to send")
	}
	sent, out := 0, 0
	for _, h := range []*how{nil, {}} {
		w.unguard(t)
		for _, c := range w.superFrames {
			if h != nil {
				w.guard(t, c.Policy, *h)
			}
			for _, s := range w.open(t, superPaths(c.Forged.GSOSize)) {
				datagrams := 0
				_, err := s.send([][]byte{c.Forged.Bytes})
				must(t, err)
				must(t, r.settle(func(b []byte) {
					if len(b) > 23 && string(b[12:14]) == "\x08\x00" && b[23] == unix.IPPROTO_UDP {
						datagrams++
					}
				}))
				// The kernel cuts what is IPv4 by its protocol, and nothing for a bypass
				// sender: that is for a device that can (validate_xmit_skb, __dev_direct_xmit).
				uncut := s.path.bypass || s.path.claim == unix.ETH_P_LLDP
				switch {
				case h != nil && datagrams != 0:
					t.Errorf("%s, %s: %d datagrams got out", c, s.path, datagrams)
				case h == nil && datagrams < 2 && !uncut:
					t.Errorf("%s, %s: does not get out without a guard", c, s.path)
				case h == nil:
					sent, out = sent+1, out+min(1, datagrams)
				}
			}
		}
	}
	t.Logf("%d super-frames by %d paths: %d of %d get out without a guard, none with it", len(w.superFrames), len(superPaths(0)), out, sent)
}

// superPaths are those with PACKET_VNET_HDR, for IPv4 without options and UDP.
func superPaths(size int) (list []path) {
	for _, p := range paths() {
		if p.vnet {
			p.header = vnetHeader{vnetNeedsChecksum, vnetGSOUDPL4, 14 + 20 + 8, uint16(size), 14 + 20, 6}
			list = append(list, p)
		}
	}
	return list
}
