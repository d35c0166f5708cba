package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/postern-fw/postern/kernel"
)

// Store is where the keys are. Its methods may be called from several goroutines.
type Store interface {
	// Follow tells the keys from FollowFrom to FollowTo, and then each change, until ctx is done.
	Follow(ctx context.Context, fn func(reset bool, keys []Key)) error
	// Version reads a version; ErrNoVersion if there is none.
	Version(ctx context.Context, n uint64) (*Version, error)
	// Report writes the node's report, if the node has the lease.
	Report(ctx context.Context, lease int64, r *Report) error
	// ReportAnew does so over a new connection, which shows that one can be made.
	ReportAnew(ctx context.Context, lease int64, r *Report) error
	// Drive makes the node the driver, if there is none.
	Drive(ctx context.Context, lease int64) error
	// Unseat ends that a lease makes its node the driver, if nothing has changed since a revision.
	Unseat(ctx context.Context, driver, revision int64) error
	// Step writes the next step of a roll-out, if nothing has changed since a revision and the node is the driver.
	Step(ctx context.Context, lease, revision int64, r *Rollout) error
	// Remaining is what remains of a lease, 0 if it is over.
	Remaining(ctx context.Context, lease int64) (time.Duration, error)
}

// Enforcer puts policies in force on the node.
type Enforcer interface {
	// Apply puts a version in force; nil is none. With a trial it goes back by itself after that, unless Confirm
	// comes. On an error nothing has changed.
	Apply(v *Version, trial time.Duration) error
	Confirm() error
	Rollback() error
	// Status and Rules tell of what is in force.
	Status() (*kernel.Status, error)
	Rules() ([]kernel.Rule, error)
	AddToSet(set string, deadline int64, elements ...[]string) error
	DeleteFromSet(set string, elements ...[]string) (deleted int, err error)
}

// Node takes the policy of the cluster, and drives its roll-out when that falls to it.
type Node struct {
	Name     string
	Store    Store
	Enforcer Enforcer
	Disk     Disk
	// Lease is the node's, 0 while it has none. Without one it takes nothing.
	Lease func() int64
	// Trial is for how long a new version is in force before it must be kept.
	Trial time.Duration
	// Patience is how long a stage may last.
	Patience time.Duration
	// Now is CLOCK_BOOTTIME in nanoseconds.
	Now func() int64
	Log *slog.Logger
	// InForce is the number of the version in force, Wanted that of the one that is wanted here, Failed how often one was
	// not taken: for who looks at it from beside.
	InForce, Wanted, Failed atomic.Uint64

	do    chan func()
	state *State
	now   int64

	// What is in force, by what was done here.
	current  ID
	version  *Version // nil where current is none
	since    time.Time
	fromDisk bool
	faults   map[string]string // what else is wrong, by what it is about

	attempt *Attempt
	retry   int64 // when a version of a roll-out that is over is tried again
	trial   *trial
	texts   map[ID]*Version
	proved  map[ID]bool
	asking  bool  // for a text
	ask     int64 // when one is asked for again
	saved   *Saved
	told    told
	drives  driving
	sets    sets
}

// trial is a version in force that may not stay.
type trial struct {
	version *Version
	id      ID
	began   int64
	asking  bool
	proved  bool
	why     error // why etcd was not reached
}

// Start says what is in force when Run begins: what was kept on disk, or nothing. fault says what was wrong with it.
func (n *Node) Start(s *Saved, fault error) {
	n.do, n.state, n.faults, n.texts = make(chan func(), 64), NewState(), map[string]string{}, map[ID]*Version{}
	n.proved, n.sets = map[ID]bool{}, newSets()
	n.since = time.Now()
	if fault != nil {
		n.faults["start"] = fault.Error()
	}
	if s == nil {
		return
	}
	n.current, n.version, n.fromDisk, n.saved = s.Version.ID(), &s.Version, true, s
	n.texts[n.current], n.proved[n.current] = n.version, true
	for _, e := range s.Elements {
		n.sets.permanent[e.Key()] = e
	}
}

// Run takes what the cluster wants until ctx is done. What is in force stays.
func (n *Node) Run(ctx context.Context) error {
	go func() {
		_ = n.Store.Follow(ctx, func(reset bool, keys []Key) {
			n.post(ctx, func() {
				for _, why := range n.state.Learn(reset, keys) {
					n.Log.Error("what stands in etcd is not taken: " + why)
				}
				n.followed(reset, keys)
			})
		})
	}()
	tick := time.NewTimer(0)
	defer tick.Stop()
	n.sets.changed = n.current.Number != 0
	for {
		select {
		case fn := <-n.do:
			fn()
		case <-tick.C:
		case <-ctx.Done():
			if n.trial != nil {
				n.back("the agent ended")
			}
			return nil
		}
		tick.Reset(n.reconcile(ctx))
	}
}

// followed notes what keys that were learned mean for the sets.
func (n *Node) followed(reset bool, keys []Key) {
	n.sets.followed = true
	if reset || slices.ContainsFunc(keys, func(k Key) bool { return strings.HasPrefix(k.Name, SetsKey) }) {
		n.sets.changed, n.sets.listed = true, true
	}
}

func (n *Node) post(ctx context.Context, fn func()) {
	select {
	case n.do <- fn:
	case <-ctx.Done():
	}
}

// async does something that takes long beside the loop, and then something in it.
func async[T any](ctx context.Context, n *Node, do func(context.Context) (T, error), then func(T, error)) {
	go func() {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		v, err := do(once)
		n.post(ctx, func() { then(v, err) })
	}()
}

// member says whether the node is the one of its name, by what it and etcd know.
func (n *Node) member() bool {
	l := n.Lease()
	return l != 0 && n.state.Leases[n.Name] == l
}

// reconcile makes what is in force what is wanted, and returns when to look again.
func (n *Node) reconcile(ctx context.Context) time.Duration {
	n.now = n.Now()
	if n.trial != nil {
		n.try(ctx)
	} else if r := n.state.Rollout; r != nil && n.member() {
		n.take(ctx, r)
	}
	n.syncSets(ctx)
	n.keep()
	n.InForce.Store(n.current.Number)
	if r := n.state.Rollout; r != nil {
		n.Wanted.Store(n.target(r).Number)
	}
	if n.member() {
		n.tell(ctx)
		n.drive(ctx)
	}
	if n.trial != nil {
		return 50 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// take begins to take the wanted version.
func (n *Node) take(ctx context.Context, r *Rollout) {
	want := n.target(r)
	if want == n.current {
		// What became of a version is told as long as that is the latest.
		if a := n.attempt; a == nil || a.ID != r.ID && a.ID != want || a.Error != "" && a.ID == want {
			n.attempt = &Attempt{ID: want}
		}
		return
	}
	if a := n.attempt; a != nil && a.ID == want && a.Error != "" && (!r.Over() || n.now < n.retry) {
		return
	}
	if want.Number == 0 {
		n.put(nil, want)
		return
	}
	if v := n.texts[want]; v != nil {
		n.put(v, want)
		return
	}
	if n.asking || n.now < n.ask {
		return
	}
	n.asking = true
	async(ctx, n, func(ctx context.Context) (*Version, error) { return n.Store.Version(ctx, want.Number) }, func(v *Version, err error) {
		n.asking = false
		switch {
		case err == nil && v.ID() == want:
			n.remember(v)
		case err == nil:
			n.failed(want, fmt.Errorf("%s holds another text than the one that is rolled out", Numbered(PoliciesKey, want.Number)))
		case errors.Is(err, ErrNoVersion), errors.Is(err, ErrNotRead):
			n.failed(want, err)
		default:
			// etcd may answer in a moment. When it does not, the roll-out fails for its patience.
			n.ask = n.now + int64(time.Second)
			n.Log.Warn(fmt.Sprintf("reading version %d of the cluster's policy: %v", want.Number, err))
		}
	})
}

// target is the version that the node is to have now. Where etcd knows of no good one, because it was emptied, that
// is the one that the node has kept: it does not go from a policy to none, nor from a new one that failed.
func (n *Node) target(r *Rollout) ID {
	want := r.Target(n.Name)
	if want.Number == 0 && n.saved != nil {
		want = n.saved.Version.ID()
		n.texts[want] = &n.saved.Version
	}
	return want
}

// remember keeps the texts that may be needed again.
func (n *Node) remember(v *Version) {
	maps.DeleteFunc(n.texts, func(id ID, _ *Version) bool { return id != n.current && id != n.state.Rollout.Good })
	n.texts[v.ID()] = v
}

// again is when a version that could not be taken is tried again, where nothing is waiting for it.
const again = int64(30 * time.Second)

func (n *Node) failed(id ID, err error) {
	n.Log.Error(fmt.Sprintf("version %d of the cluster's policy is not taken, what was in force is: %v", id.Number, err))
	n.Failed.Add(1)
	n.attempt, n.retry = &Attempt{ID: id, Error: Shown(err.Error(), maxCause)}, n.now+again
}

// put puts a version in force: one that is new here for a trial.
func (n *Node) put(v *Version, id ID) {
	if v != nil {
		if _, _, err := Check(fmt.Sprintf("version %d", v.Number), []byte(v.Text)); err != nil {
			n.failed(id, err)
			return
		}
	}
	limit := n.Trial
	if v == nil || n.proved[id] {
		limit = 0 // it was in force here before
	}
	began := n.Now()
	if err := n.Enforcer.Apply(v, limit); err != nil {
		n.failed(id, err)
		return
	}
	if limit == 0 {
		n.inForce(v, id)
		n.Log.Info(fmt.Sprintf("version %d of the cluster's policy is in force again", id.Number))
		return
	}
	n.Log.Info(fmt.Sprintf("version %d of the cluster's policy is tried", id.Number), "for", limit)
	n.trial = &trial{version: v, id: id, began: began}
	n.sets.changed = true
}

func (n *Node) inForce(v *Version, id ID) {
	n.current, n.version, n.since, n.fromDisk = id, v, time.Now(), false
	n.attempt, n.proved[id] = &Attempt{ID: id}, true
	delete(n.faults, "start")
	n.sets.changed = true
}

// try ends a trial when it is time, one way or the other.
func (n *Node) try(ctx context.Context) {
	t, age := n.trial, time.Duration(n.now-n.trial.began)
	switch r := n.state.Rollout; {
	case n.target(r) != t.id:
		n.back("it is not wanted any more")
	case t.proved:
		if err := n.Enforcer.Confirm(); errors.Is(err, kernel.ErrNotPending) {
			n.back("the kernel went back before it could be kept")
		} else if err != nil {
			n.back(err.Error())
		} else {
			n.trial = nil
			n.inForce(t.version, t.id)
			n.Log.Info(fmt.Sprintf("version %d of the cluster's policy is in force", t.id.Number))
		}
	case age > n.Trial*9/10:
		why := "etcd was not reached through it"
		if t.why != nil {
			why += ": " + t.why.Error()
		}
		n.back(why)
	case age >= n.Trial/4 && !t.asking:
		t.asking = true
		lease, report := n.Lease(), n.report()
		async(ctx, n, func(ctx context.Context) (any, error) { return nil, n.Store.ReportAnew(ctx, lease, report) }, func(_ any, err error) {
			t.asking, t.proved, t.why = false, err == nil, err
		})
	}
}

// back ends a trial by going back.
func (n *Node) back(why string) {
	t := n.trial
	n.trial = nil
	err := n.Enforcer.Rollback()
	if errors.Is(err, kernel.ErrNotPending) {
		// The kernel went back by itself, or somebody confirmed the trial by hand: what is in force after this
		// is certain.
		err = n.Enforcer.Apply(n.version, 0)
	}
	if err != nil {
		// The kernel does it when the time is over.
		why += "; going back: " + err.Error()
	}
	n.sets.changed = true
	n.failed(t.id, errors.New(why))
}

// keep writes what is in force to disk, if it is the cluster's last good version.
func (n *Node) keep() {
	r := n.state.Rollout
	if r == nil || n.trial != nil || n.version == nil || n.current != r.Good || n.now < n.sets.save {
		return
	}
	if n.saved != nil && n.saved.Version.ID() == n.current && !n.sets.unsaved {
		return
	}
	elements := n.sets.lasting()
	s := &Saved{Version: *n.version, Elements: elements}
	if err := n.Disk.Save(s); err != nil {
		n.sets.save = n.now + again
		n.fault("disk", err)
		return
	}
	n.fault("disk", nil)
	n.saved, n.sets.unsaved = s, false
}

// fault notes what is wrong with something, nil for nothing.
func (n *Node) fault(what string, err error) {
	if err == nil {
		delete(n.faults, what)
		return
	}
	if n.faults[what] != err.Error() {
		n.Log.Error(err.Error())
	}
	n.faults[what] = err.Error()
}
