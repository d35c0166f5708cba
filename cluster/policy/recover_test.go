package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// restart is the node started anew with what its disk has.
func (w *world) restart() {
	s, err := w.Disk.Load()
	if err != nil {
		w.t.Fatal(err)
	}
	w.Start(s, nil)
}

// TestEmptied: where etcd was emptied, a node goes on with the version it kept, until the first one that is put there is
// its own, and goes back to it when that fails.
func TestEmptied(t *testing.T) {
	for _, c := range []struct {
		name    string
		do      func(*world, ID)
		inForce string
		failure string
	}{
		{"one is put", func(w *world, next ID) { w.wants(Rollout{ID: next, Stage: Put}) }, "7", ""},
		{"another node is the first", func(w *world, next ID) { w.wants(Rollout{ID: next, Stage: First, First: "n9"}) }, "7", ""},
		{"this one is", func(w *world, next ID) { w.wants(Rollout{ID: next, Stage: First, First: "n1"}) }, "1", ""},
		{"it fails here", func(w *world, next ID) {
			w.anew = errors.New("no route")
			w.wants(Rollout{ID: next, Stage: First, First: "n1"})
		}, "7", "no route"},
		{"it fails elsewhere later", func(w *world, next ID) {
			w.wants(Rollout{ID: next, Stage: First, First: "n1"})
			w.pass(5 * time.Second)
			w.expect("1", "")
			w.wants(Rollout{ID: next, Stage: Failed, First: "n1", Cause: "n9: no"})
		}, "7", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			seven := w.put(7)
			w.wants(Rollout{ID: seven, Good: seven, Stage: Done})
			w.pass(4 * time.Second)
			w.expect("7", "")
			w.state.Learn(true, nil)
			w.pass(time.Second)
			w.expect("7", "")
			delete(w.versions, 7)
			c.do(w, w.put(1))
			w.pass(12 * time.Second)
			w.expect(c.inForce, c.failure)
		})
	}
}

// TestSameAgain: who has what is rolled out says so, also after a restart.
func TestSameAgain(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.wants(Rollout{ID: one, Good: one, Stage: Done})
	w.pass(4 * time.Second)
	w.restart()
	w.state.Learn(true, nil)
	w.wants(Rollout{ID: one, Stage: First, First: "n1"})
	w.pass(time.Second)
	if w.attempt == nil || w.attempt.ID != one || w.attempt.Error != "" {
		t.Errorf("%+v", w.attempt)
	}
}

// TestUnread: that a text cannot be read for a moment is no failure of the version.
func TestUnread(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.read = errors.New("no leader")
	w.wants(Rollout{ID: one, Stage: First, First: "n1"})
	w.pass(6 * time.Second)
	w.expect("1", "")
	if w.Failed.Load() != 0 {
		t.Errorf("%d failures", w.Failed.Load())
	}
}

// TestConfirmedByHand: after a trial that somebody else ended, what is in force is what the node says.
func TestConfirmedByHand(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.wants(Rollout{ID: one, Good: one, Stage: Done})
	w.pass(4 * time.Second)
	w.anew = errors.New("no route")
	w.wants(Rollout{ID: w.put(2), Good: one, Stage: First, First: "n1"})
	w.pass(time.Second)
	w.expect("2", "")
	w.pending = false // postern confirm
	w.pass(12 * time.Second)
	w.expect("1", "no route")
}

// TestDeclared: an element that the policy has itself is not the cluster's to take out.
func TestDeclared(t *testing.T) {
	w := newWorld(t)
	one, key := w.put(1), Key{Name: SetsKey + "s/192.0.2.2"}
	w.wants(Rollout{ID: one, Good: one, Stage: Done}, key)
	w.pass(4 * time.Second)
	if _, there := w.set["s 192.0.2.2"]; !there {
		t.Fatal("it was not added")
	}
	w.put(2)
	w.versions[2].Text = strings.Replace(w.versions[2].Text, "[192.0.2.9]", "[192.0.2.9, 192.0.2.2]", 1)
	two := w.versions[2].ID()
	w.wants(Rollout{ID: two, Good: two, Stage: Done})
	w.pass(4 * time.Second)
	w.expect("2", "")
	key.Deleted = true
	w.learn(key)
	w.pass(time.Second)
	if _, there := w.set["s 192.0.2.2"]; !there {
		t.Error("an element of the policy's was deleted")
	}
	// In one step with the version that declares it.
	w = newWorld(t)
	key.Deleted = false
	one = w.put(1)
	w.wants(Rollout{ID: one, Good: one, Stage: Done}, key)
	w.pass(4 * time.Second)
	w.versions[2] = &Version{Number: 2, Name: "p", Text: strings.Replace(w.versions[1].Text, "[192.0.2.9]", "[192.0.2.9, 192.0.2.2]", 1)}
	two, key.Deleted = w.versions[2].ID(), true
	w.texts[two] = w.versions[2]
	w.wants(Rollout{ID: two, Good: two, Stage: Done}, key)
	w.pass(4 * time.Second)
	if _, there := w.set["s 192.0.2.2"]; !there {
		t.Error("an element of the policy's was deleted with the cluster's")
	}
}

// TestUnadded: an element that could not be added is tried again.
func TestUnadded(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.refusesElements = errors.New("no memory")
	w.wants(Rollout{ID: one, Good: one, Stage: Done}, Key{Name: SetsKey + "s/192.0.2.2"})
	w.pass(4 * time.Second)
	if w.faults["sets"] == "" {
		t.Error("it is no fault")
	}
	w.refusesElements = nil
	w.pass(4 * time.Second)
	if _, there := w.set["s 192.0.2.2"]; !there || w.faults["sets"] != "" {
		t.Errorf("%v %q", w.set, w.faults["sets"])
	}
}

// TestQuiet: keys that are no elements cost no work on the sets.
func TestQuiet(t *testing.T) {
	w := newWorld(t)
	one := w.put(1)
	w.wants(Rollout{ID: one, Good: one, Stage: Done}, Key{Name: SetsKey + "s/192.0.2.2"})
	w.pass(4 * time.Second)
	parsed := w.sets.parses
	for i := range 100 {
		w.learn(Key{Name: NodesKey + fmt.Sprint("n", i), Lease: int64(100 + i)})
		w.pass(0)
	}
	if n := w.sets.parses - parsed; n != 0 {
		t.Errorf("the policy was parsed %d times", n)
	}
}

// TestUnseat: a driver that is there and does not drive loses the key.
func TestUnseat(t *testing.T) {
	w := newWorld(t)
	w.wants(Rollout{ID: w.put(1), Stage: First, First: "n9"}, Key{Name: DriverKey, Lease: 8})
	w.pass(2*patience - time.Second)
	if len(w.unseated) > 0 {
		t.Fatal("too early")
	}
	w.pass(4 * time.Second)
	if len(w.unseated) == 0 || w.unseated[0] != 8 {
		t.Errorf("%v", w.unseated)
	}
}

// TestReportFits: whatever the machine has, the report can be read.
func TestReportFits(t *testing.T) {
	r := &Report{Lease: 1, Interfaces: []Interface{{Name: "bad\x01name"}}}
	for i := range 100 {
		r.Interfaces = append(r.Interfaces, Interface{Name: fmt.Sprint("eth", i)})
	}
	r.fit()
	for _, i := range r.Interfaces {
		if err := line("interface", i.Name, 16); err != nil {
			t.Error(err)
		}
	}
	if len(r.Interfaces) > maxInterfaces || !strings.Contains(strings.Join(r.Faults, " "), "37 more") {
		t.Errorf("%d interfaces, %q", len(r.Interfaces), r.Faults)
	}
}

// TestTooMuchToKeep: what could not be read again is not written.
func TestTooMuchToKeep(t *testing.T) {
	d := Disk(t.TempDir())
	s := &Saved{Version: Version{Number: 1, Name: "p", Text: "policy: p"}}
	for range 200_000 {
		s.Elements = append(s.Elements, Element{Set: strings.Repeat("s", 60), Parts: []string{strings.Repeat("x", 60)}})
	}
	if err := d.Save(s); err == nil {
		t.Error("it was written")
	}
	if got, err := d.Load(); got != nil || err != nil {
		t.Errorf("%v %v", got, err)
	}
}
