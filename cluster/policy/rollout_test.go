package policy

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func id(n uint64) ID {
	v := Version{Number: n, Text: strings.Repeat("x", int(n))}
	return v.ID()
}

const patience = 30 * time.Second

func TestNext(t *testing.T) {
	good, bad := &Attempt{ID: id(2)}, &Attempt{id(2), "no"}
	all := []string{"n1", "n2", "n3"}
	for _, c := range []struct {
		name     string
		r        Rollout
		present  []string
		attempts map[string]*Attempt
		waited   time.Duration
		stage    Stage // "": no step
		first    string
		nodes    []string
		cause    string
	}{
		{"nobody is there", Rollout{Stage: Put}, nil, nil, time.Hour, "", "", nil, ""},
		{"somebody is", Rollout{Stage: Put}, all, nil, 0, First, "n1", nil, ""},
		{"the one that was named", Rollout{Stage: Put, First: "n3"}, all, nil, 0, First, "n3", nil, ""},
		{"the one that was named is not there yet", Rollout{Stage: Put, First: "n9"}, all, nil, time.Second, "", "", nil, ""},
		{"and does not come", Rollout{Stage: Put, First: "n9"}, all, nil, time.Minute, Failed, "n9", nil, "n9, which was to be the first, is not there"},
		{"the first has told nothing", Rollout{Stage: First, First: "n1"}, all, nil, time.Second, "", "", nil, ""},
		{"the first has told of another version", Rollout{Stage: First, First: "n1"}, all, map[string]*Attempt{"n1": {ID: id(1)}}, time.Second, "", "", nil, ""},
		{"of another with the same number", Rollout{Stage: First, First: "n1"}, all, map[string]*Attempt{"n1": {ID: ID{2, id(1).Digest}}}, time.Second, "", "", nil, ""},
		{"the first has it", Rollout{Stage: First, First: "n2"}, all, map[string]*Attempt{"n2": good}, time.Second, Rest, "n2", []string{"n1", "n3"}, ""},
		{"has it late", Rollout{Stage: First, First: "n2"}, all, map[string]*Attempt{"n2": good}, time.Hour, Rest, "n2", []string{"n1", "n3"}, ""},
		{"and is alone", Rollout{Stage: First, First: "n1"}, []string{"n1"}, map[string]*Attempt{"n1": good}, time.Second, Done, "n1", nil, ""},
		{"had it, and is gone", Rollout{Stage: First, First: "n1"}, []string{"n2"}, map[string]*Attempt{"n1": good}, time.Second, Rest, "n1", []string{"n2"}, ""},
		{"the first cannot", Rollout{Stage: First, First: "n1"}, all, map[string]*Attempt{"n1": bad}, 0, Failed, "n1", nil, "n1: no"},
		{"the first cannot, and is gone", Rollout{Stage: First, First: "n1"}, nil, map[string]*Attempt{"n1": bad}, 0, Failed, "n1", nil, "n1: no"},
		{"the first says nothing", Rollout{Stage: First, First: "n1"}, all, nil, time.Minute, Failed, "n1", nil, "n1: it has not taken it after 1m0s"},
		{"the first is gone", Rollout{Stage: First, First: "n1"}, []string{"n2"}, nil, time.Minute, Failed, "n1", nil, "n1: it has not been heard of for 1m0s"},
		{"one of the rest has it", Rollout{Stage: Rest, First: "n1", Nodes: []string{"n2", "n3"}}, all, map[string]*Attempt{"n2": good}, 0, "", "", nil, ""},
		{"all have it", Rollout{Stage: Rest, First: "n1", Nodes: []string{"n2", "n3"}}, all, map[string]*Attempt{"n2": good, "n3": good}, 0, Done, "n1", nil, ""},
		{"one that came later is not waited for", Rollout{Stage: Rest, First: "n1", Nodes: []string{"n2"}}, all, map[string]*Attempt{"n2": good}, 0, Done, "n1", nil, ""},
		{"one of the rest cannot", Rollout{Stage: Rest, First: "n1", Nodes: []string{"n2", "n3"}}, all, map[string]*Attempt{"n2": good, "n3": bad}, 0, Failed, "n1", []string{"n2", "n3"}, "n3: no"},
		{"one of the rest is gone", Rollout{Stage: Rest, First: "n1", Nodes: []string{"n2", "n3"}}, []string{"n1", "n2"}, map[string]*Attempt{"n2": good}, time.Second, "", "", nil, ""},
		{"and stays away", Rollout{Stage: Rest, First: "n1", Nodes: []string{"n2", "n3"}}, []string{"n1", "n2"}, map[string]*Attempt{"n2": good}, time.Minute, Failed, "n1", []string{"n2", "n3"}, "n3: it has not been heard of"},
		{"it is over", Rollout{Stage: Failed, First: "n1"}, all, map[string]*Attempt{"n1": good}, time.Hour, "", "", nil, ""},
	} {
		c.r.ID, c.r.Good = id(2), id(1)
		got := c.r.Next(Scene{Present: c.present, Attempt: func(n string) *Attempt { return c.attempts[n] }, Waited: c.waited, Patience: patience})
		if got == nil || c.stage == "" {
			if got != nil || c.stage != "" {
				t.Errorf("%s: %+v", c.name, got)
			}
			continue
		}
		wantGood := id(1)
		if c.stage == Done {
			wantGood = id(2)
		}
		if got.Stage != c.stage || got.First != c.first || !slices.Equal(got.Nodes, c.nodes) || !strings.HasPrefix(got.Cause, c.cause) || got.Good != wantGood {
			t.Errorf("%s: %+v", c.name, got)
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRollout(b); err != nil {
			t.Errorf("%s: it cannot be read: %v", c.name, err)
		}
	}
}

// TestDrivers: whoever drives, and dies after how many steps, a roll-out comes to the same end; and no node has the new version
// before its turn, nor after it has failed.
func TestDrivers(t *testing.T) {
	nodes := []string{"n1", "n2", "n3"}
	for _, failing := range []string{"", "n1", "n2", "n3"} {
		for life := 1; life < 20; life++ {
			r := &Rollout{ID: id(2), Good: id(1), Stage: Put}
			has := map[string]ID{"n1": id(1), "n2": id(1), "n3": id(1)}
			attempts := map[string]*Attempt{}
			waited, steps := time.Duration(0), 0
			for ; steps < 200 && !(r.Over() && has["n1"] == r.Good && has["n2"] == r.Good && has["n3"] == r.Good); steps++ {
				// One node does something; then the driver looks, if it lives.
				n := nodes[steps%3]
				if want := r.Target(n); want != has[n] && !(attempts[n] != nil && attempts[n].ID == want && attempts[n].Error != "") {
					if want == id(2) && n == failing {
						attempts[n] = &Attempt{want, "no"}
					} else {
						has[n], attempts[n] = want, &Attempt{ID: want}
					}
				}
				if has[n] == id(2) && r.Stage == Put {
					t.Fatalf("%s has it before anybody was asked", n)
				}
				if steps%life == life-1 {
					waited = 0 // the driver has died, the next one begins to wait
					continue
				}
				waited += time.Second
				if next := r.Next(Scene{Present: nodes, Attempt: func(n string) *Attempt { return attempts[n] }, Waited: waited, Patience: patience}); next != nil {
					r, waited = next, 0
				}
			}
			if life == 1 {
				continue // nobody ever lives to drive it
			}
			want := Done
			if failing != "" {
				want = Failed
			}
			if r.Stage != want || has["n1"] != r.Good || has["n2"] != r.Good || has["n3"] != r.Good {
				t.Errorf("failing %q, driver lives for %d: %+v, %v", failing, life, r, has)
			}
		}
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		stage Stage
		want  map[string]uint64
	}{
		{Put, map[string]uint64{"n1": 1, "n2": 1, "n9": 1}},
		{First, map[string]uint64{"n1": 2, "n2": 1, "n9": 1}},
		{Rest, map[string]uint64{"n1": 2, "n2": 2, "n9": 1}}, // one that comes has the last good one
		{Done, map[string]uint64{"n1": 2, "n2": 2, "n9": 2}},
		{Failed, map[string]uint64{"n1": 1, "n2": 1, "n9": 1}},
	} {
		r := Rollout{ID: id(2), Good: id(1), Stage: c.stage, First: "n1", Nodes: []string{"n2"}}
		for node, want := range c.want {
			if got := r.Target(node); got != id(want) {
				t.Errorf("%s: %s is to have %d, want %d", c.stage, node, got.Number, want)
			}
		}
	}
}

func TestDisk(t *testing.T) {
	d := Disk(filepath.Join(t.TempDir(), "a", "b"))
	if s, err := d.Load(); s != nil || err != nil {
		t.Errorf("%+v %v", s, err)
	}
	if err := d.Check(); err != nil {
		t.Fatal(err)
	}
	want := &Saved{Version: Version{Number: 7, Author: "a", Name: "p", Text: "policy: p\n"}, Elements: []Element{{Set: "s", Parts: []string{"192.0.2.1"}}}}
	for range 2 { // the second one replaces the first
		if err := d.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.Load()
	if err != nil || got.Version.ID() != want.Version.ID() || len(got.Elements) != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	if files, _ := os.ReadDir(string(d)); len(files) != 1 {
		t.Errorf("left: %v", files)
	}
	whole, err := os.ReadFile(d.path())
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := slices.Clone(whole)
		bad[i] ^= 1
		for _, b := range [][]byte{bad, whole[:i]} {
			if err := os.WriteFile(d.path(), b, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Load(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "remove it") {
				t.Fatalf("damaged at %d: %v", i, err)
			}
		}
	}
	if err := Disk("/proc/no/such").Check(); err == nil {
		t.Error("a directory that cannot be made")
	}
}

func TestElement(t *testing.T) {
	for _, e := range []Element{{"blocked", []string{"192.0.2.0/28"}, 7}, {"a/b", []string{"02:00:00:00:00:01", "192.0.2.1..192.0.2.9"}, 0}, {"s", []string{"a,b", ""}, 0}} {
		got, err := ParseElement(Key{Name: e.Key(), Lease: e.Lease})
		if err != nil || got.Set != e.Set || !slices.Equal(got.Parts, e.Parts) || got.Lease != e.Lease {
			t.Errorf("%+v: %+v %v", e, got, err)
		}
	}
	for _, name := range []string{"", "cluster/sets/", "cluster/sets/a", "cluster/sets//x", "cluster/sets/a/%zz", "cluster/sets/a/x/y", "cluster/sets/a/%41", "cluster/sets/a/%0a%1b", "cluster/sets/a/1,2,3,4,5"} {
		if e, err := ParseElement(Key{Name: name}); err == nil {
			t.Errorf("%q: %+v", name, e)
		}
	}
}

func TestLearn(t *testing.T) {
	s := NewState()
	r, _ := json.Marshal(Rollout{ID: id(2), Good: id(1), Stage: First, First: "n1"})
	report, _ := json.Marshal(Report{Lease: 5, ID: id(1)})
	keys := []Key{{Name: RolloutKey, Value: r, Revision: 9}, {Name: DriverKey, Lease: 5}, {Name: ReportsKey + "n1", Value: report},
		{Name: ReportsKey + "n2", Value: report}, {Name: "nodes/n1", Lease: 5}, {Name: "nodes/n2", Lease: 6}, {Name: SetsKey + "s/1"}}
	if bad := s.Learn(true, keys); bad != nil || s.Rollout == nil || s.Revision != 9 || s.Driver != 5 || len(s.Elements) != 1 {
		t.Fatalf("%+v %v", s, bad)
	}
	if got := s.Present(); !slices.Equal(got, []string{"n1"}) { // n2 has not reported since it came back
		t.Errorf("present: %v", got)
	}
	// What cannot be read is told, and does not take the place of what could.
	if bad := s.Learn(false, []Key{{Name: RolloutKey, Value: []byte("{"), Revision: 10}}); len(bad) != 1 || s.Rollout.ID != id(2) || s.Revision != 10 || len(s.Faults()) != 1 {
		t.Errorf("%+v %v", s, bad)
	}
	// Nor does nothing at all.
	if s.Learn(true, nil); s.Rollout.ID != id(2) || s.Revision != 0 || len(s.Elements)+len(s.Reports)+len(s.Faults()) != 0 {
		t.Errorf("%+v", s)
	}
}

// FuzzKeys: whatever stands below the prefix, it is read or refused, and what is read can be shown.
func FuzzKeys(f *testing.F) {
	r, _ := json.Marshal(Rollout{ID: id(2), Good: id(1), Stage: Rest, First: "n1", Nodes: []string{"n2"}})
	report, _ := json.Marshal(Report{Lease: 5, ID: id(1), Attempt: &Attempt{id(2), "no"}, Faults: []string{"a"}, Interfaces: []Interface{{"eth0", "gate", ""}}})
	v, _ := json.Marshal(Version{Number: 1, Text: "policy: p", Author: "a"})
	for name, value := range map[string][]byte{RolloutKey: r, ReportsKey + "n1": report, SetsKey + "s/192.0.2.0%2F28": nil, Numbered(PoliciesKey, 1): v, Numbered(OutcomesKey, 1): []byte(`{"version":1}`), "nodes/n1": nil} {
		f.Add(name, value)
	}
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		s := NewState()
		s.Learn(false, []Key{{Name: name, Value: value, Lease: 1, Revision: 1}})
		shown := s.Faults()
		if r := s.Rollout; r != nil {
			shown = append(shown, r.Cause, r.First)
			for _, n := range []string{"n1", r.First} {
				if got := r.Target(n); got != r.ID && got != r.Good {
					t.Errorf("the target is %+v", got)
				}
			}
			if next := r.Next(Scene{Present: []string{"n1"}, Attempt: s.Attempt}); next != nil {
				b, _ := json.Marshal(next)
				if _, err := ParseRollout(b); err != nil {
					t.Errorf("the next step cannot be read: %v", err)
				}
			}
		}
		for node, r := range s.Reports {
			shown = append(append(shown, node), r.Faults...)
		}
		for key, e := range s.Elements {
			if shown = append(append(shown, e.Set), e.Parts...); e.Key() != key {
				t.Errorf("%q is %q", key, e.Key())
			}
		}
		if n, ok := ParseNumbered(PoliciesKey, name); ok {
			if v, err := ParseVersion(n, value); err == nil {
				shown = append(shown, v.Author, v.Comment, v.Name)
			} else {
				shown = append(shown, Shown(err.Error(), 512))
			}
		}
		if n, ok := ParseNumbered(OutcomesKey, name); ok {
			if o, err := ParseOutcome(n, value); err == nil {
				shown = append(shown, o.Cause, o.First)
			}
		}
		for _, text := range shown {
			if err := line("what is shown", text, maxCause); err != nil {
				t.Error(err)
			}
		}
	})
}
