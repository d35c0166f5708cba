package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/kernel"
)

// world is a store and an enforcer that do what a test wants.
type world struct {
	*Node
	t        *testing.T
	clock    int64
	lease    int64
	versions map[uint64]*Version
	anew     error // of a report over a new connection
	left     time.Duration
	reports  []*Report
	steps    []*Rollout

	read            error // of a text, once
	unseated        []int64
	adds            int
	refusesElements error

	inForce, before string
	pending         bool
	refuses         error // of Apply
	keeps           error // of Confirm
	set             map[string]int64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, clock: 1000e9, lease: 7, versions: map[uint64]*Version{}, set: map[string]int64{}, inForce: "0"}
	w.Node = &Node{Name: "n1", Store: w, Enforcer: w.enforcer(), Disk: Disk(t.TempDir()), Lease: func() int64 { return w.lease }, Trial: 10 * time.Second, Patience: patience,
		Now: func() int64 { return w.clock }, Log: slog.New(slog.DiscardHandler)}
	w.Start(nil, nil)
	return w
}

type fakeEnforcer struct{ *world }

func (w *world) enforcer() Enforcer { return fakeEnforcer{w} }

func (w *world) Follow(context.Context, func(bool, []Key)) error { return nil }
func (w *world) Version(_ context.Context, n uint64) (*Version, error) {
	if err := w.read; err != nil {
		w.read = nil
		return nil, err
	}
	if v := w.versions[n]; v != nil {
		return v, nil
	}
	return nil, ErrNoVersion
}
func (w *world) Report(_ context.Context, _ int64, r *Report) error {
	w.reports = append(w.reports, r)
	return nil
}
func (w *world) ReportAnew(context.Context, int64, *Report) error { return w.anew }
func (w *world) Drive(context.Context, int64) error               { return nil }
func (w *world) Unseat(_ context.Context, driver, _ int64) error {
	w.unseated = append(w.unseated, driver)
	return nil
}
func (w *world) Step(_ context.Context, _, _ int64, r *Rollout) error {
	w.steps = append(w.steps, r)
	return nil
}
func (w *world) Remaining(context.Context, int64) (time.Duration, error) {
	return w.left, nil
}

func (e fakeEnforcer) Apply(v *Version, trial time.Duration) error {
	if e.refuses != nil {
		return e.refuses
	}
	e.before, e.inForce, e.pending = e.inForce, "0", trial > 0
	if v != nil {
		e.inForce = fmt.Sprint(v.Number)
	}
	return nil
}
func (e fakeEnforcer) Confirm() error {
	if !e.pending {
		return kernel.ErrNotPending
	}
	if e.keeps == nil {
		e.pending = false
	}
	return e.keeps
}
func (e fakeEnforcer) Rollback() error {
	if !e.pending {
		return kernel.ErrNotPending
	}
	e.inForce, e.pending = e.before, false
	return nil
}
func (e fakeEnforcer) Status() (*kernel.Status, error) { return &kernel.Status{}, nil }
func (e fakeEnforcer) Rules() ([]kernel.Rule, error)   { return nil, nil }
func (e fakeEnforcer) AddToSet(set string, deadline int64, elements ...[]string) error {
	if e.adds++; e.refusesElements != nil {
		return e.refusesElements
	}
	for _, x := range elements {
		e.set[set+" "+x[0]] = deadline
	}
	return nil
}
func (e fakeEnforcer) DeleteFromSet(set string, elements ...[]string) (int, error) {
	for _, x := range elements {
		delete(e.set, set+" "+x[0])
	}
	return len(elements), nil
}

// put makes a version.
func (w *world) put(n uint64) ID {
	v := &Version{Number: n, Name: "p", Text: fmt.Sprintf("policy: p%d\nguard: [{interfaces: [eth0]}]\nsets: {s: {type: ipv4, elements: [192.0.2.9]}}\n", n)}
	w.versions[n] = v
	return v.ID()
}

// wants has etcd say something.
func (w *world) wants(r Rollout, more ...Key) {
	b, err := json.Marshal(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.learn(append(more, Key{Name: RolloutKey, Value: b, Revision: 5}, Key{Name: "nodes/n1", Lease: 7})...)
}

func (w *world) learn(keys ...Key) {
	if bad := w.state.Learn(false, keys); bad != nil {
		w.t.Fatal(bad)
	}
	w.followed(false, keys)
}

// pass lets time pass, and the node do what it does meanwhile.
func (w *world) pass(d time.Duration) {
	for end := w.clock + int64(d); ; w.clock = min(w.clock+int64(250*time.Millisecond), end) {
		for range 2 {
			w.reconcile(w.t.Context())
			for settled := false; !settled; {
				select {
				case fn := <-w.do:
					fn()
				case <-time.After(2 * time.Millisecond): // what it does beside its loop
					settled = true
				}
			}
		}
		if w.clock == end {
			return
		}
	}
}

func (w *world) expect(inForce string, failure string) {
	w.t.Helper()
	got := ""
	if w.attempt != nil {
		got = w.attempt.Error
	}
	if w.inForce != inForce || failure == "" && got != "" || !strings.Contains(got, failure) {
		w.t.Errorf("%s is in force (%q), want %s (%q)", w.inForce, got, inForce, failure)
	}
}

func TestTrial(t *testing.T) {
	for _, c := range []struct {
		name    string
		do      func(*world, Rollout)
		inForce string
		failure string
	}{
		{"kept", func(w *world, _ Rollout) { w.pass(4 * time.Second) }, "2", ""},
		{"not kept before it is time", func(w *world, _ Rollout) {
			w.pass(2 * time.Second)
			w.expect("2", "")
			if !w.pending {
				t.Error("it was kept at once")
			}
			w.pass(2 * time.Second)
		}, "2", ""},
		{"etcd is not reached", func(w *world, _ Rollout) { w.anew = errors.New("no route"); w.pass(12 * time.Second) }, "1", "no route"},
		{"etcd is reached late", func(w *world, _ Rollout) {
			w.anew = errors.New("no route")
			w.pass(7 * time.Second)
			w.anew = nil
			w.pass(time.Second)
		}, "2", ""},
		{"the agent was frozen, and the kernel went back", func(w *world, _ Rollout) {
			w.pass(time.Second)
			w.inForce, w.pending = w.before, false
			w.clock += int64(time.Minute)
			w.pass(time.Second)
		}, "1", "etcd was not reached"},
		{"it went back just before it was kept", func(w *world, _ Rollout) {
			w.pass(2 * time.Second)
			w.inForce, w.pending = w.before, false
			w.pass(2 * time.Second)
		}, "1", "the kernel went back"},
		{"it cannot be kept", func(w *world, _ Rollout) { w.keeps = errors.New("no cgroup"); w.pass(4 * time.Second) }, "1", "no cgroup"},
		{"called off", func(w *world, r Rollout) {
			w.pass(time.Second)
			w.wants(*r.Abort("me", time.Time{}))
			w.pass(time.Second)
		}, "1", "not wanted any more"},
		{"it cannot be put in force", func(w *world, _ Rollout) { w.refuses = errors.New("too large"); w.pass(time.Second) }, "1", "too large"},
		{"another text", func(w *world, _ Rollout) {
			v := *w.versions[2]
			v.Text += "# changed\n"
			w.versions[2] = &v
			w.pass(time.Second)
		}, "1", "another text"},
		{"no text", func(w *world, _ Rollout) { delete(w.versions, 2); w.pass(time.Second) }, "1", "no such version"},
		{"another has the name", func(w *world, _ Rollout) { w.lease = 8; w.pass(5 * time.Second) }, "1", ""},
		{"the lease is not there yet", func(w *world, _ Rollout) { w.lease = 0; w.pass(5 * time.Second) }, "1", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			one := w.put(1)
			w.wants(Rollout{ID: one, Good: one, Stage: Done})
			w.pass(4 * time.Second)
			w.expect("1", "")
			if s, err := w.Disk.Load(); err != nil || s.Version.ID() != one {
				t.Fatalf("%+v %v", s, err)
			}
			r := Rollout{ID: w.put(2), Good: one, Stage: First, First: "n1"}
			w.wants(r)
			c.do(w, r)
			w.expect(c.inForce, c.failure)
			// What all have not taken is not kept for the time alone.
			if s, err := w.Disk.Load(); err != nil || s.Version.ID() != one {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

// TestTaken: a version that failed is not tried again while it is rolled out, and is when it is the cluster's; what was in
// force before comes back at once.
func TestTaken(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.wants(Rollout{ID: one, Good: one, Stage: Done})
	w.pass(4 * time.Second)
	two := w.put(2)
	w.refuses = errors.New("no")
	w.wants(Rollout{ID: two, Good: one, Stage: Rest, First: "n9", Nodes: []string{"n1"}})
	w.pass(time.Second)
	w.refuses = nil
	w.pass(time.Minute)
	w.expect("1", "no")
	w.wants(Rollout{ID: two, Good: two, Stage: Done})
	w.pass(4 * time.Second)
	w.expect("2", "")
	w.wants(Rollout{ID: w.put(3), Good: one, Stage: Failed, Cause: "x"})
	w.pass(0)
	if w.expect("1", ""); w.pending {
		t.Error("the last good version is on trial")
	}
}

// TestEnds: an element's deadline here is counted from before its lease was asked for, and those of the fence are nobody's.
func TestEnds(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.left = 20 * time.Second
	asked := w.clock
	w.wants(Rollout{ID: one, Good: one, Stage: Done}, Key{Name: SetsKey + "s/192.0.2.1", Lease: 9}, Key{Name: SetsKey + "s/192.0.2.2"},
		Key{Name: SetsKey + "s/192.0.2.9"}, Key{Name: SetsKey + "vips/192.0.2.3"}, Key{Name: SetsKey + "s/x"})
	w.reconcile(t.Context())
	w.clock += int64(3 * time.Second) // the answer is late
	w.pass(4 * time.Second)
	if len(w.set) != 2 || w.set["s 192.0.2.2"] != 0 || w.set["s 192.0.2.1"] != asked+int64(20*time.Second) {
		t.Errorf("%v", w.set)
	}
	if f := w.faults["sets"]; !strings.Contains(f, "set vips is the fence's") || !strings.Contains(f, "element x") {
		t.Errorf("%q", f)
	}
	w.learn(Key{Name: SetsKey + "s/192.0.2.2", Deleted: true}, Key{Name: SetsKey + "s/192.0.2.9", Deleted: true})
	w.pass(0)
	if len(w.set) != 1 {
		t.Errorf("%v", w.set)
	}
	if s, err := w.Disk.Load(); err != nil || slices.ContainsFunc(s.Elements, func(e Element) bool { return e.Parts[0] == "192.0.2.2" }) {
		t.Errorf("%+v %v", s, err)
	}
}

// TestDrive: the driver alone moves a roll-out on, and not by what cannot be read.
func TestDrive(t *testing.T) {
	for _, c := range []struct {
		name   string
		driver int64
		bad    bool
		steps  bool
	}{{"the driver", 7, false, true}, {"another is", 8, false, false}, {"what stands there cannot be read", 7, true, false}} {
		w := newWorld(t)
		w.wants(Rollout{ID: w.put(1), Stage: First, First: "n9"}, Key{Name: DriverKey, Lease: c.driver})
		if c.bad {
			w.state.Learn(false, []Key{{Name: RolloutKey, Value: []byte("{"), Revision: 6}})
		}
		w.pass(patience + 2*time.Second)
		if (len(w.steps) > 0) != c.steps {
			t.Errorf("%s: %+v", c.name, w.steps)
		}
		if c.steps && (w.steps[0].Stage != Failed || !strings.Contains(w.steps[0].Cause, "n9: it has not been heard of")) {
			t.Errorf("%+v", w.steps[0])
		}
	}
}
