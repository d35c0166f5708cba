package cluster

import (
	"testing"
	"time"
)

// Whoever may write below the prefix can name this node the holder, or free the address, while another one speaks: it
// is left alone until that one's door is shut for sure. What the holder did itself, and the end of its lease, are
// known from that.
func TestChangedByHand(t *testing.T) {
	released := func(node string, lease, revision int64) Change {
		c := held("10.0.0.1", node, lease, revision)
		c.Holder.Released = true
		return c
	}
	at := func(c Change, revision int64) Change { c.Revision = revision; return c }
	for name, c := range map[string]struct {
		changes func(w *world) []Change
		waits   bool
	}{
		"given to this node":        {func(*world) []Change { return []Change{held("10.0.0.1", "n1", 7, 6)} }, true},
		"freed under another lease": {func(*world) []Change { return []Change{released("n2", 9, 6), held("10.0.0.1", "n1", 7, 7)} }, true},
		"freed in another name":     {func(*world) []Change { return []Change{released("n1", 7, 6), held("10.0.0.1", "n1", 7, 7)} }, true},
		"removed, and given":        {func(*world) []Change { return []Change{at(gone("10.0.0.1"), 6), held("10.0.0.1", "n1", 7, 7)} }, true},
		"the node's key removed before": {func(*world) []Change {
			return []Change{{Node: "n2", Revision: 6}, at(gone("10.0.0.1"), 7), held("10.0.0.1", "n1", 7, 8)}
		}, true},
		"given, and seen after a while": {func(w *world) []Change {
			return []Change{{Reset: true, Revision: 6}, w.node("n1", 7), w.node("n2", 8), held("10.0.0.1", "n1", 7, 6)}
		}, true},
		"released": {func(*world) []Change { return []Change{released("n2", 8, 6), held("10.0.0.1", "n1", 7, 7)} }, false},
		"the lease is over": {func(*world) []Change {
			return []Change{at(gone("10.0.0.1"), 6), {Node: "n2", Revision: 6}, held("10.0.0.1", "n1", 7, 7)}
		}, false},
		"it was over, seen after a while": {func(w *world) []Change {
			return []Change{{Reset: true, Revision: 6}, w.node("n1", 7), held("10.0.0.1", "n1", 7, 6)}
		}, false},
	} {
		w := newWorld(t, "announce: {probe: false}\n", "{address: 10.0.0.1, prefer: [n1]}")
		w.renewed(7, time.Minute)
		w.learn(w.node("n1", 7), w.node("n2", 8), held("10.0.0.1", "n2", 8, 5))
		w.learn(c.changes(w)...)
		const opened = "open 10.0.0.1 until 1m0s; add 10.0.0.1; announce 10.0.0.1"
		if !c.waits {
			w.expect(name, opened)
			continue
		}
		w.now += int64(w.agent.Config.Lease) - 1
		w.agent.reconcile()
		w.expect(name+", before n2's lease would be over", "")
		w.now++
		w.agent.reconcile()
		w.expect(name+", after it", opened)
	}
}
