package matrix

import (
	"testing"

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
}

// open opens the sockets of paths at the near device.
func (w *world) open(t testing.TB, list []path) (senders []*sender) {
	t.Helper()
	return w.openAt(t, 0, w.near, list)
}

// openAt opens the sockets of paths in a namespace.
func (w *world) openAt(t testing.TB, ns int, d device, list []path) (senders []*sender) {
	t.Helper()
	t.Cleanup(func() { closeAll(senders) })
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
