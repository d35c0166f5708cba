package policy

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// told is what was reported last.
type told struct {
	report *Report
	lease  int64
	at     int64
	look   int64 // when the machine is asked again
	busy   bool
}

// every is how often counters are reported.
const every = int64(5 * time.Second)

// tell reports what has changed.
func (n *Node) tell(ctx context.Context) {
	t, lease := &n.told, n.Lease()
	if n.state.Reports[n.Name] == nil && n.now > t.at+int64(time.Second) {
		t.report = nil // what was told is not there any more
	}
	if t.busy || n.now < t.look && t.lease == lease && n.same() {
		return
	}
	r := n.report()
	t.look = n.now + int64(2*time.Second)
	if t.report != nil && t.lease == lease && n.now < t.at+every && alike(t.report, r) {
		return
	}
	t.busy = true
	async(ctx, n, func(ctx context.Context) (any, error) { return nil, n.Store.Report(ctx, lease, r) }, func(_ any, err error) {
		t.busy = false
		if err != nil {
			t.look = n.now + int64(time.Second)
			return
		}
		t.report, t.lease, t.at = r, lease, n.now
	})
}

// same says whether what was reported of the versions is so still.
func (n *Node) same() bool {
	return n.told.report != nil && n.told.report.ID == n.current && reflect.DeepEqual(n.told.report.Attempt, n.attempt)
}

// alike compares reports but for what changes all the time.
func alike(a, b *Report) bool {
	x, y := *a, *b
	x.Time, y.Time, x.Counters, y.Counters = time.Time{}, time.Time{}, Counters{}, Counters{}
	return reflect.DeepEqual(x, y)
}

// report is what there is to say now.
func (n *Node) report() *Report {
	r := &Report{Lease: n.Lease(), Time: time.Now().UTC().Round(0), ID: n.current, Since: n.since.UTC().Round(0), FromDisk: n.fromDisk, Attempt: n.attempt}
	if n.trial != nil {
		r.Trial = n.trial.id.Number
	}
	for _, what := range slices.Sorted(maps.Keys(n.faults)) {
		r.Faults = append(r.Faults, n.faults[what])
	}
	r.Faults = append(r.Faults, n.state.Faults()...)
	n.reportMachine(r)
	r.fit()
	return r
}

// reportMachine adds what the machine says.
func (n *Node) reportMachine(r *Report) {
	status, err := n.Enforcer.Status()
	if err != nil {
		r.Faults = append(r.Faults, err.Error())
		return
	}
	r.Faults = append(r.Faults, status.Warnings...)
	for _, i := range status.Interfaces {
		r.Interfaces = append(r.Interfaces, Interface{i.Name, i.Hook, i.Fault})
	}
	if !status.Enforcing {
		return
	}
	rules, err := n.Enforcer.Rules()
	if err != nil {
		r.Faults = append(r.Faults, err.Error())
		return
	}
	for i, rule := range rules {
		switch {
		case i == len(rules)-1:
			r.Counters.Malformed = rule.Frames
		case strings.HasPrefix(rule.Verdict, "drop"):
			r.Counters.Dropped += rule.Frames
		case rule.Verdict == "accept" || strings.HasPrefix(rule.Verdict, "forward"):
			r.Counters.Accepted += rule.Frames
		}
	}
	r.Counters.Rules = max(0, len(rules)-2)
}

// driving is the driver's.
type driving struct {
	revision int64 // of the stage that is looked at
	since    int64
	busy     bool
	// stepped is the revision that was stepped from, until the step is seen, or long enough.
	stepped, until int64
}

// drive moves a roll-out on, if that falls to this node.
func (n *Node) drive(ctx context.Context) {
	r, d, lease, revision := n.state.Rollout, &n.drives, n.Lease(), n.state.Revision
	if r == nil || r.Over() || revision == 0 || n.state.Bad[RolloutKey] != "" || d.busy || d.stepped == revision && n.now < d.until {
		return
	}
	var do func(context.Context) error
	if d.revision != revision {
		d.revision, d.since = revision, n.now
	}
	switch driver := n.state.Driver; driver {
	case 0:
		do = func(ctx context.Context) error { return n.Store.Drive(ctx, lease) }
	case lease:
		next := r.Next(Scene{Present: n.state.Present(), Attempt: n.state.Attempt, Waited: time.Duration(n.now - d.since), Patience: n.Patience, Now: time.Now().UTC().Round(0)})
		if next == nil {
			return
		}
		do = func(ctx context.Context) error { return n.Store.Step(ctx, lease, revision, next) }
		d.stepped, d.until = revision, n.now+int64(2*time.Second)
	default:
		// It is there, or its key would not be, and does not drive: it hangs, or may not write.
		if n.now-d.since < 2*int64(n.Patience) || n.now < d.until {
			return
		}
		do = func(ctx context.Context) error { return n.Store.Unseat(ctx, driver, revision) }
		d.until = n.now + int64(n.Patience)
	}
	d.busy = true
	async(ctx, n, func(ctx context.Context) (any, error) { return nil, do(ctx) }, func(_ any, err error) {
		d.busy = false
		if err != nil {
			n.Log.Warn("moving the roll-out on: " + err.Error())
		}
	})
}
