package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// world is what an agent under test works with: everything it does is noted, and the clock is
// the test's.
type world struct {
	t     *testing.T
	agent *Agent
	did   []string
	claim []Claim
	give  []Claim
	now   int64
	// doorFails is what the door says.
	doorFails error
	probes    chan error
	mu        sync.Mutex
}

// newWorld makes an agent whose loop is the test's goroutine.
func newWorld(t *testing.T, more string, addresses ...string) *world {
	t.Helper()
	text := "node: n1\ninterface: eth0\n" + more + "addresses:\n"
	for _, a := range addresses {
		text += "  - " + a + "\n"
	}
	c, err := ParseConfig("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, now: int64(time.Hour), probes: make(chan error, 8)}
	w.agent = New(Parts{Config: c, Election: w, Door: w, Voice: w, Carrier: carrier{w}, Now: func() int64 { return w.now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	w.agent.followed = true
	t.Cleanup(w.agent.stop)
	return w
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, fmt.Sprintf(format, args...))
}

// took is what was done since the last time.
func (w *world) took() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	did := w.did
	w.did = nil
	return strings.Join(did, "; ")
}

func list(addresses []netip.Addr) string {
	var out []string
	for _, a := range addresses {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

func (w *world) Open(until int64, a ...netip.Addr) error {
	if w.doorFails != nil {
		return w.doorFails
	}
	w.note("open %s until %v", list(a), time.Duration(until-int64(time.Hour)))
	return nil
}
func (w *world) Shut(a ...netip.Addr) error { w.note("shut %s", list(a)); return w.doorFails }
func (w *world) Announce(a netip.Addr)      { w.note("announce %v", a) }
func (w *world) Silence(a netip.Addr)       { w.note("silence %v", a) }
func (w *world) Probe(ctx context.Context, a netip.Addr) error {
	w.note("probe %v", a)
	return <-w.probes
}

type carrier struct{ w *world }

func (c carrier) Add(a netip.Addr) error           { c.w.note("add %v", a); return nil }
func (c carrier) Delete(a netip.Addr) error        { c.w.note("delete %v", a); return nil }
func (c carrier) Only(func(netip.Addr) bool) error { return nil }

func (w *world) Renew(context.Context) (Lease, error)         { return Lease{}, nil }
func (w *world) Publish(context.Context, Lease, Node) error   { return nil }
func (w *world) Follow(context.Context, func([]Change)) error { return nil }
func (w *world) Resign(context.Context) error                 { w.note("resign"); return nil }
func (w *world) Claim(_ context.Context, _ Lease, c []Claim) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.claim = c
	return nil
}
func (w *world) Release(_ context.Context, _ Lease, c []Claim) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.give = c
	return nil
}

// gave is what was given back so far.
func (w *world) gave() []Claim {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.give
}

// renewed gives the agent a lease that lasts until so long after the hour.
func (w *world) renewed(id int64, until time.Duration) {
	w.agent.renewed(Lease{id, int64(time.Hour) + int64(until)})
	w.agent.reconcile()
}

// node tells of one that may have all addresses.
func (w *world) node(name string, lease int64) Change {
	n := &Node{Lease: lease}
	for _, a := range w.agent.addresses {
		n.Addresses = append(n.Addresses, a.Addr)
	}
	return Change{Node: name, Record: n}
}

func held(a, node string, lease, revision int64) Change {
	return Change{Address: netip.MustParseAddr(a), Holder: &Holder{Node: node, Lease: lease, Revision: revision}, Revision: revision}
}

func gone(a string) Change { return Change{Address: netip.MustParseAddr(a)} }

// learn tells the agent.
func (w *world) learn(list ...Change) {
	w.agent.learn(list)
	w.agent.reconcile()
}

func (w *world) expect(when, want string) {
	w.t.Helper()
	if got := w.took(); got != want {
		w.t.Errorf("%s:\n got %s\nwant %s", when, got, want)
	}
}

const one = "{address: 10.0.0.1}"

// holding is a world whose agent holds 10.0.0.1 by lease 7, until 3 s after the hour.
func holding(t *testing.T, more string) *world {
	w := newWorld(t, more, one)
	w.renewed(7, 3*time.Second)
	w.learn(w.node("n1", 7), w.node("n2", 8), held("10.0.0.1", "n1", 7, 5))
	w.expect("held already", "open 10.0.0.1 until 3s; add 10.0.0.1; announce 10.0.0.1")
	return w
}

func TestHolds(t *testing.T) {
	w := holding(t, "")
	w.now += int64(time.Second)
	w.renewed(7, 4*time.Second)
	w.expect("renewed", "open 10.0.0.1 until 4s")
	w.renewed(7, 3500*time.Millisecond)
	w.expect("a renewal that came out of order", "")
}

// A lease that may be over silences at once; the same lease, renewed, opens again.
func TestLapses(t *testing.T) {
	w := holding(t, "")
	w.now += int64(3 * time.Second)
	w.agent.reconcile()
	w.expect("lapsed", "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
	// The process was frozen: the answer to a renewal of long ago opens nothing.
	w.renewed(7, 2999*time.Millisecond)
	w.expect("an old answer", "")
	w.now += int64(time.Second)
	w.renewed(7, 3999*time.Millisecond)
	w.expect("an answer that is late", "")
	w.renewed(7, 7*time.Second)
	w.expect("renewed in time", "open 10.0.0.1 until 7s; add 10.0.0.1; announce 10.0.0.1")
}

// Nothing that was held under another lease is held under a new one.
func TestLosesTheLease(t *testing.T) {
	w := holding(t, "")
	w.renewed(9, 5*time.Second)
	w.expect("another lease", "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
	w.learn(Change{Node: "n1"}, w.node("n1", 9), held("10.0.0.1", "n2", 8, 6))
	w.renewed(9, 6*time.Second)
	w.expect("another holder", "")
}

func TestIsTakenFrom(t *testing.T) {
	for name, c := range map[string]Change{
		"by another":         held("10.0.0.1", "n2", 8, 6),
		"by its removal":     gone("10.0.0.1"),
		"by what is no name": {Address: netip.MustParseAddr("10.0.0.1"), Holder: &Holder{Malformed: "x", Lease: 7}},
	} {
		w := holding(t, "")
		w.learn(c)
		w.expect(name, "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
	}
}

// The holder's lease was over: its address is claimed. Its key was removed while it lives: it
// may be speaking until its lease would be over.
func TestClaims(t *testing.T) {
	for _, c := range []struct {
		name    string
		changes func(w *world) []Change
		wait    time.Duration
	}{
		{"the holder is gone", func(w *world) []Change { return []Change{gone("10.0.0.1"), {Node: "n2"}} }, 0},
		{"the holder released it", func(w *world) []Change {
			h := held("10.0.0.1", "n2", 8, 6)
			h.Holder.Released = true
			return []Change{{Node: "n2", Record: &Node{Drained: true, Lease: 8}}, h}
		}, 0},
		{"its key was removed", func(w *world) []Change { return []Change{gone("10.0.0.1")} }, 3 * time.Second},
	} {
		w := newWorld(t, "", "{address: 10.0.0.1, prefer: [n1]}")
		w.renewed(7, time.Minute)
		n1 := w.node("n1", 7)
		w.learn(w.node("n2", 8), held("10.0.0.1", "n2", 8, 5))
		w.learn(append(c.changes(w), n1)...)
		x := w.agent.addresses[0]
		if c.wait > 0 {
			if x.claiming != 0 {
				t.Errorf("%s: it is claimed at once", c.name)
			}
			w.now += int64(c.wait)
			w.agent.reconcile()
		}
		if x.claiming == 0 {
			t.Errorf("%s: it is not claimed", c.name)
		}
		w.learn(held("10.0.0.1", "n1", 7, 9))
		// It was the cluster's a moment ago: nobody needs to be asked.
		w.expect(c.name, "open 10.0.0.1 until 1m0s; add 10.0.0.1; announce 10.0.0.1")
	}
}

// What the cluster had needs no probe, the first claim does.
func TestProbes(t *testing.T) {
	for _, c := range []struct {
		name, then string
		err        error
	}{
		{"nobody answers", "probe 10.0.0.1; open 10.0.0.1 until 1m0s; add 10.0.0.1; announce 10.0.0.1", nil},
		{"somebody answers", "probe 10.0.0.1", errors.New("in use")},
	} {
		w := newWorld(t, "", one)
		w.renewed(7, time.Minute)
		w.learn(w.node("n1", 7))
		if w.agent.addresses[0].claiming == 0 {
			t.Fatal("not claimed")
		}
		w.learn(held("10.0.0.1", "n1", 7, 5))
		w.probes <- c.err
		for w.agent.addresses[0].probing != nil {
			(<-w.agent.do)()
		}
		w.agent.reconcile()
		w.expect(c.name, c.then)
		if refused := w.agent.addresses[0].refused != ""; refused != (c.err != nil) {
			t.Errorf("%s: refused %t", c.name, refused)
		}
	}
}

func TestGives(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"drained":           func(w *world) { w.agent.drained = true },
		"the check fails":   func(w *world) { w.agent.health("web", false, "no answer") },
		"the door is stuck": func(w *world) { w.agent.break_(errors.New("no such set")) },
	} {
		w := newWorld(t, "checks: {web: {tcp: \"a:1\"}}\n", "{address: 10.0.0.1, check: web}")
		w.agent.health("web", true, "")
		w.renewed(7, 3*time.Second)
		w.learn(w.node("n1", 7), held("10.0.0.1", "n1", 7, 5))
		w.took()
		change(w)
		w.agent.reconcile()
		w.expect(name, "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
		if x := w.agent.addresses[0]; x.giving == 0 {
			t.Errorf("%s: it is not given back", name)
		}
	}
}

// A door that does not shut is not followed by a release: whoever comes next would speak while
// it is open. It shuts by itself, since it is not held open any longer.
func TestStuckDoor(t *testing.T) {
	w := holding(t, "")
	w.doorFails = errors.New("stuck")
	w.agent.drained = true
	w.agent.reconcile()
	w.agent.leave()
	w.expect("stuck", "silence 10.0.0.1; shut 10.0.0.1; silence 10.0.0.1; shut 10.0.0.1")
	w.now += int64(2500 * time.Millisecond)
	w.renewed(7, 5*time.Second)
	w.expect("renewed", "silence 10.0.0.1; shut 10.0.0.1")
	time.Sleep(10 * time.Millisecond)
	if w.gave() != nil {
		t.Error("released behind an open door")
	}
	w.now += int64(2500 * time.Millisecond)
	w.renewed(7, 8*time.Second)
	w.expect("over", "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
	for w.gave() == nil {
		time.Sleep(time.Millisecond)
	}
	w.agent.leave()
	w.expect("at the end", "resign")
}

// An agent that was started anew holds what it held, though its checks have not run yet.
func TestRestarts(t *testing.T) {
	w := newWorld(t, "checks: {web: {tcp: \"a:1\"}}\n", "{address: 10.0.0.1, check: web}", "{address: 10.0.0.2, check: web}")
	w.renewed(7, 3*time.Second)
	w.learn(w.node("n1", 7), held("10.0.0.1", "n1", 7, 5))
	w.expect("at once", "open 10.0.0.1 until 3s; add 10.0.0.1; announce 10.0.0.1")
	if w.agent.addresses[1].claiming != 0 {
		t.Error("it claims more though its check has not run")
	}
}

func TestStandalone(t *testing.T) {
	w := newWorld(t, "", one)
	w.agent.Election = NewStandalone("n1")
	w.agent.Config.Announce.Probe = new(bool)
	w.agent.followed = false
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.agent.Run(ctx) }()
	for {
		s, err := w.agent.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Addresses[0].Open {
			if s.Lease != nil || s.Addresses[0].Node != "n1" {
				t.Errorf("%+v", s)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.expect("alone", "open 10.0.0.1 until -1h0m0s; add 10.0.0.1; announce 10.0.0.1") // 0: for ever
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.expect("ended", "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
}

// What was asked to be given back is not opened again: the request may be carried out at any moment.
func TestGivesForGood(t *testing.T) {
	w := holding(t, "")
	w.agent.drained = true
	w.agent.reconcile()
	w.took()
	w.agent.drained = false
	w.now += int64(2500 * time.Millisecond)
	w.renewed(7, 6*time.Second)
	w.expect("wanted again", "")
	w.learn(Change{Reset: true, Revision: 5}, w.node("n1", 7), held("10.0.0.1", "n1", 7, 5))
	w.expect("told once more of what it asked to end", "")
	if x := w.agent.addresses[0]; x.giving != w.now {
		t.Error("it is not asked again")
	}
	released := held("10.0.0.1", "n1", 7, 6)
	released.Holder.Released = true
	w.learn(released)
	w.learn(held("10.0.0.1", "n1", 7, 7))
	w.expect("given back, and claimed anew", "open 10.0.0.1 until 6s; add 10.0.0.1; announce 10.0.0.1")
}

func TestFenceIsDistrusted(t *testing.T) {
	w := holding(t, "")
	w.agent.Trust(errors.New("gone"))
	for w.agent.distrust == nil {
		(<-w.agent.do)()
	}
	w.agent.reconcile()
	w.expect("distrusted", "silence 10.0.0.1; shut 10.0.0.1; delete 10.0.0.1")
}

// An etcd that was restored from a backup knows of no lease, and holders may speak until theirs would be over.
func TestForgottenByEtcd(t *testing.T) {
	for name, c := range map[string]struct {
		revision int64
		claims   bool
	}{"it knows more": {6, true}, "it knows less": {4, false}, "it is another": {0, false}} {
		w := newWorld(t, "", "{address: 10.0.0.1, prefer: [n1]}")
		w.renewed(7, time.Minute)
		w.learn(Change{Reset: true, Revision: 3}, w.node("n1", 7), w.node("n2", 8), held("10.0.0.1", "n2", 8, 5))
		w.learn(Change{Reset: true, Revision: c.revision}, w.node("n1", 7))
		if claims := w.agent.addresses[0].claiming != 0; claims != c.claims {
			t.Errorf("%s: claims %t", name, claims)
		}
		w.now += int64(3 * time.Second)
		w.agent.reconcile()
		if w.agent.addresses[0].claiming == 0 {
			t.Errorf("%s: never claims", name)
		}
	}
}
