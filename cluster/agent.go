package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Parts are what an agent works with.
type Parts struct {
	Config   *Config
	Election Election
	Door     Door
	Voice    Voice
	Carrier  Carrier // optional: addresses are put on interfaces
	// Health tells of checks; optional. It calls fn until ctx is done.
	Health func(ctx context.Context, fn func(check string, healthy bool, why string))
	// Now is CLOCK_BOOTTIME in nanoseconds.
	Now func() int64
	Log *slog.Logger
}

// Agent holds the addresses that fall to one node.
type Agent struct {
	Parts
	// Count is what happened so far.
	Count Count

	do   chan func()
	jobs context.Context // done when the agent ends
	stop context.CancelFunc

	// What follows belongs to the loop alone; others have it do something.
	lease     Lease
	nodes     map[string]*Node
	addresses []*address
	byAddr    map[netip.Addr]*address
	followed  bool
	sick      map[string]string // why, by check
	drained   bool
	began     int64
	settled   bool  // what an agent before left behind is gone
	broken    error // of the door
	retry     int64 // when the door is tried again
	distrust  error // of the fence, by who looks at it
	revision  int64 // the latest that was told
	published *Node
	telling   bool
}

// New makes an agent. Run is called once.
func New(p Parts) *Agent {
	a := &Agent{Parts: p, do: make(chan func(), 64), nodes: map[string]*Node{}, sick: map[string]string{}, byAddr: map[netip.Addr]*address{}}
	a.jobs, a.stop = context.WithCancel(context.Background())
	for _, x := range p.Config.Addresses {
		a.addresses = append(a.addresses, &address{Address: x})
		a.byAddr[x.Addr] = a.addresses[len(a.addresses)-1]
	}
	for name := range p.Config.Checks {
		a.sick[name] = notChecked
	}
	return a
}

// notChecked takes nothing away that is held already: the agent may have been started anew.
const notChecked = "not checked yet"

// Count is counters.
type Count struct {
	Renewed, RenewFailed, LeasesLost, Lapsed, Opened, Given, Conflicts, Failed atomic.Uint64
}

// address is what the loop knows of one.
type address struct {
	Address
	holder *Holder
	open   bool
	until  int64     // the latest end of its door, 0 for none
	since  time.Time // of open, for people
	// known says that it was held since we follow: it is the cluster's, and needs no probe.
	known   bool
	probing context.CancelFunc
	// claiming is when a claim was sent, giving when a release was, which is that of revision gives.
	claiming, giving, gives int64
	// wait is when it may be claimed at the earliest.
	wait int64
	// refused is why this node cannot hold it, until the instant refusedUntil.
	refused      string
	refusedUntil int64
}

const (
	// again is how long a claim or a release may be without an answer.
	again = int64(2 * time.Second)
	// forgiven is when an address that somebody else used, or a door that did not open, is tried again.
	forgiven = int64(30 * time.Second)
)

// Run holds addresses until ctx is done, and then gives them to others. It fails if this node
// may not take part.
func (a *Agent) Run(ctx context.Context) error {
	defer a.stop()
	a.began = a.Now()
	group, jobs := errgroup.WithContext(a.jobs)
	group.Go(func() error { return a.renew(jobs) })
	group.Go(func() error {
		return unless(jobs, a.Election.Follow(jobs, func(list []Change) { a.post(func() { a.learn(list) }) }))
	})
	if a.Health != nil {
		group.Go(func() error {
			a.Health(jobs, func(c string, ok bool, why string) { a.post(func() { a.health(c, ok, why) }) })
			return nil
		})
	}
	group.Go(func() error { a.loop(ctx, jobs); a.stop(); return nil })
	return group.Wait()
}

func unless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// post has the loop do something.
func (a *Agent) post(fn func()) {
	select {
	case a.do <- fn:
	case <-a.jobs.Done():
	}
}

// loop ends when ctx is done and nothing is held any more, or at once when jobs are.
func (a *Agent) loop(ctx, jobs context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last <-chan time.Time
	end := ctx.Done()
	for {
		select {
		case fn := <-a.do:
			fn()
			for more := true; more; {
				select {
				case fn := <-a.do:
					fn()
				default:
					more = false
				}
			}
		case <-timer.C:
		case <-end:
			a.drained, end, last = true, nil, time.After(2*time.Second)
		case <-last:
			a.leave()
			return
		case <-jobs.Done():
			a.leave()
			return
		}
		timer.Reset(a.reconcile())
		if end == nil && a.idle() {
			a.leave()
			return
		}
	}
}

// leave ends the lease. What could not be given back is free with it: the doors are shut.
func (a *Agent) leave() {
	var open []*address
	for _, x := range a.addresses {
		if x.open {
			open = append(open, x)
		}
	}
	if !a.shut(open) {
		return // then the lease must run out
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.jobs), time.Second)
	defer cancel()
	if err := a.Election.Resign(ctx); err != nil {
		a.Log.Warn("the lease runs out by itself: " + err.Error())
	}
}

// idle says whether nothing is held, or being given back.
func (a *Agent) idle() bool {
	for _, x := range a.addresses {
		if x.open || a.mine(x) {
			return false
		}
	}
	return true
}

// renew keeps the lease alive.
func (a *Agent) renew(ctx context.Context) error {
	first, failing := a.Now(), int64(0)
	for {
		l, err := a.Election.Renew(ctx)
		now := a.Now()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failing = 0
			a.Count.Renewed.Add(1)
			a.post(func() { a.renewed(l) })
		default:
			a.Count.RenewFailed.Add(1)
			joined := first == 0
			if errors.Is(err, ErrNameTaken) && !joined && now-first > int64(a.Config.Lease+2*time.Second) {
				return err
			}
			if now-failing > int64(5*time.Second) {
				failing = now
				a.Log.Error("the lease is not renewed: " + err.Error())
			}
		}
		if err == nil {
			first = 0
		}
		select {
		case <-time.After(a.Config.Lease / 6):
		case <-ctx.Done():
			return nil
		}
	}
}

// renewed makes the doors stay open longer.
func (a *Agent) renewed(l Lease) {
	if l.ID != a.lease.ID {
		if a.lease.ID != 0 {
			a.Count.LeasesLost.Add(1)
			a.Log.Warn("the lease was over, all that was held is lost")
		}
		a.published = nil
	} else if l.Until < a.lease.Until {
		return // it came out of order
	}
	a.lease = l
	now := a.Now()
	var open []netip.Addr
	for _, x := range a.addresses {
		// What is to be shut is not held open any longer.
		if x.open && a.mine(x) && x.giving == 0 && a.unable(x, now) == "" {
			x.until = l.Until
			open = append(open, x.Addr)
		}
	}
	if len(open) > 0 {
		if err := a.Door.Open(l.Until, open...); err != nil {
			a.break_(err)
		}
	}
}

// break_ gives all up: a door that cannot be moved is no fence.
func (a *Agent) break_(err error) {
	a.Count.Failed.Add(1)
	if a.broken == nil {
		a.Log.Error("the fence cannot be changed, this node holds nothing: " + err.Error())
	}
	a.broken, a.retry = err, a.Now()+forgiven/6
}

// Trust says what is wrong with the fence, nil for nothing. An agent whose fence is not in force holds
// nothing.
func (a *Agent) Trust(err error) {
	a.post(func() {
		if err != nil && a.distrust == nil {
			a.Count.Failed.Add(1)
			a.Log.Error("this node holds nothing: " + err.Error())
		}
		a.distrust = err
	})
}

// mine says whether this node holds an address, by what it knows.
func (a *Agent) mine(x *address) bool {
	h := x.holder
	return h != nil && h.Malformed == "" && !h.Released && a.lease.ID != 0 && h.Lease == a.lease.ID && h.Node == a.Config.Node
}

func (a *Agent) health(check string, healthy bool, why string) {
	_, was := a.sick[check]
	switch {
	case healthy && was:
		delete(a.sick, check)
		a.Log.Info("the check succeeds", "check", check)
	case !healthy:
		if !was || a.sick[check] == notChecked {
			a.Log.Warn("the check fails, its addresses are given up: "+why, "check", check)
		}
		a.sick[check] = why
	}
}

// unable says why this node cannot hold an address now; "" if it can.
func (a *Agent) unable(x *address, now int64) string {
	switch {
	case a.drained:
		return "drained"
	case a.broken != nil:
		return a.broken.Error()
	case a.distrust != nil:
		return a.distrust.Error()
	case x.refused != "" && now < x.refusedUntil:
		return x.refused
	}
	if why, sick := a.sick[x.Check]; sick && (why != notChecked || !a.mine(x)) {
		return fmt.Sprintf("check %s: %s", x.Check, why)
	}
	return ""
}

// publish tells the others what has changed of this node.
func (a *Agent) publish(now int64) {
	n := &Node{Drained: a.drained}
	for _, x := range a.addresses {
		n.Addresses = append(n.Addresses, x.Addr)
		if !a.drained && a.unable(x, now) != "" {
			n.Unable = append(n.Unable, x.Addr)
		}
	}
	if a.telling || reflect.DeepEqual(n, a.published) {
		return
	}
	a.telling = true
	l := a.lease
	go func() {
		err := a.Election.Publish(a.jobs, l, *n)
		if err != nil && a.jobs.Err() == nil {
			a.Log.Warn("telling the others of this node: " + err.Error())
			time.Sleep(200 * time.Millisecond)
		}
		a.post(func() {
			a.telling = false
			if err == nil && l.ID == a.lease.ID {
				a.published = n
			}
		})
	}()
}
