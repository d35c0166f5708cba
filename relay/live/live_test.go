package live

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/relay/binding"
)

// fake is a firewall with one set.
type fake struct {
	types    []string
	elements map[string]int64
	err      error
	deleted  int
	status   kernel.Status
	// before is what the set of the policy has to which the kernel may go back.
	before map[string]int64
}

func (f *fake) Status() (*kernel.Status, error) {
	s := f.status
	return &s, f.err
}

func (f *fake) Sets() ([]kernel.SetInfo, error) {
	return []kernel.SetInfo{{Name: "other"}, {Name: "bindings", Types: f.types}}, f.err
}

func (f *fake) AddToSet(_ string, deadline int64, elements ...[]string) error {
	for _, e := range elements {
		f.elements[strings.Join(e, " ")] = deadline
	}
	return f.err
}

func (f *fake) DeleteFromSet(_ string, elements ...[]string) (int, error) {
	for _, e := range elements {
		f.deleted++
		delete(f.elements, strings.Join(e, " "))
		delete(f.before, strings.Join(e, " "))
	}
	return len(elements), f.err
}

func (f *fake) ListSet(string) (list []kernel.Element, err error) {
	for text, deadline := range f.elements {
		e := kernel.Element{Text: strings.Split(text, " ")}
		if deadline != 0 {
			e.Remaining = time.Duration(deadline - binding.BootTime())
		}
		list = append(list, e)
	}
	return list, f.err
}

func newFake(types ...string) (*fake, *Set) {
	f := &fake{types: types, elements: map[string]int64{}}
	return f, New(f, "bindings", func(binding.IPv4) (binding.Binding, bool) { return binding.Binding{}, false }, slog.New(slog.DiscardHandler))
}

func (f *fake) has() string { return strings.Join(slices.Sorted(maps.Keys(f.elements)), ", ") }

func bind(last byte, lease uint32) binding.Binding {
	b := binding.Binding{IP: binding.IPv4(0x0a010000 + int(last)), MAC: binding.MAC{2, 0, 0, 0, 0, last}, Place: binding.Place{Interface: "veth1", VLAN: 7}}
	b.Until(binding.BootTime(), lease)
	return b
}

func TestElements(t *testing.T) {
	for _, tt := range []struct {
		types []string
		want  string
	}{
		{[]string{"string", "mac", "ipv4"}, "veth1 02:00:00:00:00:01 10.1.0.1"},
		{[]string{"mac", "ipv4"}, "02:00:00:00:00:01 10.1.0.1"},
		{[]string{"ipv4"}, "10.1.0.1"},
		{[]string{"number", "ipv4"}, "7 10.1.0.1"},
	} {
		f, s := newFake(tt.types...)
		if s.Sync([]binding.Binding{bind(1, 600)}); f.has() != tt.want || s.Behind() {
			t.Errorf("%v: %q, want %q", tt.types, f.has(), tt.want)
		}
	}
	_, s := newFake("ipv6")
	if s.Sync(nil); !s.Behind() {
		t.Error("a set of ipv6 is taken")
	}
}

// Nothing leaves the set because a process has started; what is missing comes, and deadlines are
// put right.
func TestSync(t *testing.T) {
	f, s := newFake("ipv4")
	f.elements["10.9.9.9"] = 0
	renewed := bind(1, 600)
	f.elements["10.1.0.1"] = renewed.Deadline - 300*int64(time.Second)
	over := bind(3, 0)
	s.Sync([]binding.Binding{renewed, bind(2, 0xffffffff), over})
	if f.has() != "10.1.0.1, 10.1.0.2, 10.9.9.9" || f.deleted != 0 {
		t.Errorf("%q, %d deleted", f.has(), f.deleted)
	}
	if end := f.elements["10.1.0.1"]; end > renewed.Deadline || end < renewed.Deadline-int64(time.Second) || f.elements["10.1.0.2"] != 0 {
		t.Errorf("deadlines %v", f.elements)
	}
}

func TestChange(t *testing.T) {
	f, s := newFake("ipv4")
	s.Sync(nil)
	one, two := bind(1, 600), bind(2, 600)
	s.Change(nil, []binding.Change{{Binding: one}, {Binding: two}})
	s.Change([]binding.Binding{one}, []binding.Change{{Binding: one, Gone: true}})
	if f.has() != "10.1.0.2" {
		t.Errorf("%q", f.has())
	}
	// Given and released at once, and the other way round.
	s.Change([]binding.Binding{one}, []binding.Change{{Binding: one}, {Binding: one, Gone: true}})
	s.held = func(binding.IPv4) (binding.Binding, bool) { return two, true }
	s.Change([]binding.Binding{two}, []binding.Change{{Binding: two, Gone: true}, {Binding: two}})
	if f.has() != "10.1.0.2" {
		t.Errorf("%q", f.has())
	}
}

// A firewall that fails is caught up with.
func TestBehind(t *testing.T) {
	f, s := newFake("ipv4")
	s.Sync(nil)
	f.err = errors.New("it fails")
	if s.Change(nil, []binding.Change{{Binding: bind(1, 600)}}); !s.Behind() {
		t.Error("not behind")
	}
	f.err = nil
	delete(f.elements, "10.1.0.1")
	if s.Sync([]binding.Binding{bind(1, 600)}); s.Behind() || f.has() != "10.1.0.1" {
		t.Errorf("behind: %t, %q", s.Behind(), f.has())
	}
}

// What has ended leaves all sets, also one that fails for a while, and is remembered until then.
func TestLeave(t *testing.T) {
	f, ports := newFake("string", "ipv4")
	other, hosts := newFake("ipv4")
	g := &Group{Sets: []*Set{ports, hosts}}
	one, two := bind(1, 0xffffffff), bind(2, 0xffffffff)
	g.Leave([]binding.Binding{two})
	f.elements["veth1 10.1.0.2"], other.elements["10.1.0.2"] = 0, 0
	if left := g.Sync([]binding.Binding{one}); len(left) != 1 || f.has() != "veth1 10.1.0.1" || other.has() != "10.1.0.1" {
		t.Errorf("left %v; %q, %q", left, f.has(), other.has())
	}
	other.err = errors.New("it fails")
	if left := g.Change([]binding.Binding{one}, []binding.Change{{Binding: one, Gone: true}}); left != nil || f.has() != "" || !g.Behind() {
		t.Errorf("left %v, %q", left, f.has())
	}
	if left := g.Change(nil, []binding.Change{{Binding: two}}); left != nil || f.has() != "veth1 10.1.0.2" {
		t.Errorf("left %v, %q", left, f.has())
	}
	other.err = nil
	if left := g.Sync([]binding.Binding{two}); len(left) != 1 || other.has() != "10.1.0.2" || g.Behind() {
		t.Errorf("left %v, %q", left, other.has())
	}
	other.err = kernel.ErrNothing
	g.Change([]binding.Binding{two}, nil)
	if left := g.Sync(nil); len(left) != 1 || len(hosts.leaving) != 0 {
		t.Errorf("of a set that is not there: left %v", left)
	}
}

// tick is what the relay does now and then.
func tick(g *Group, all ...binding.Binding) (left []binding.Binding) {
	if g.Look(); g.Behind() {
		left = g.Sync(all)
	}
	return left
}

// A set that was emptied by another policy is filled again; one that the same policy has is not looked through.
func TestAnotherPolicy(t *testing.T) {
	f, s := newFake("ipv4")
	g := &Group{Sets: []*Set{s}}
	one := bind(1, 600)
	since := time.Now()
	f.status = kernel.Status{Enforcing: true, Generation: 1, Since: since}
	tick(g, one)
	clear(f.elements)
	if tick(g, one); f.has() != "" {
		t.Errorf("%q, though nothing has changed", f.has())
	}
	f.status.Since = since.Add(time.Second) // flush, and apply
	if tick(g, one); f.has() != "10.1.0.1" {
		t.Errorf("after another policy: %q", f.has())
	}
	clear(f.elements)
	f.err = errors.New("it fails")
	if tick(g, one); !s.Behind() {
		t.Error("not behind, though nobody knows what is in force")
	}
	f.err = nil
	f.status.Generation = 2
	if tick(g, one); f.has() != "10.1.0.1" {
		t.Errorf("after another generation: %q", f.has())
	}
}

// What has ended while a policy was on trial is not in the set of the one before when that comes back, and is remembered until then.
func TestTrial(t *testing.T) {
	for _, c := range []struct {
		name string
		// on and off are what the trial does to the set.
		on, off func(*fake)
	}{
		{"a policy without the set", func(f *fake) { f.err = nil; f.types = nil }, func(f *fake) { f.types = []string{"ipv4"} }},
		{"one with another set", func(f *fake) { f.types = []string{"mac"} }, func(f *fake) { f.types = []string{"ipv4"} }},
	} {
		for _, known := range []bool{true, false} {
			f, s := newFake("ipv4")
			s.sets = noSet{f}
			g := &Group{Sets: []*Set{s}}
			one, two := bind(1, 0xffffffff), bind(2, 0xffffffff)
			f.status = kernel.Status{Enforcing: true, Generation: 1}
			if known {
				tick(g, one, two)
			}
			f.before = map[string]int64{"10.1.0.1": 0, "10.1.0.2": 0}
			c.on(f)
			f.status = kernel.Status{Enforcing: true, Generation: 2, Pending: &kernel.Pending{}}
			tick(g, one, two)
			if left := g.Change([]binding.Binding{one}, []binding.Change{{Binding: one, Gone: true}}); left != nil {
				t.Errorf("%s, %t: %v is forgotten while it may be in the set before", c.name, known, left)
			}
			if left := tick(g, two); left != nil {
				t.Errorf("%s, %t: %v is forgotten while it may be in the set before", c.name, known, left)
			}
			c.off(f)
			f.elements, f.status = f.before, kernel.Status{Enforcing: true, Generation: 1}
			if left := tick(g, two); len(left) != 1 || f.has() != "10.1.0.2" {
				t.Errorf("%s, %t: back with %q, left %v", c.name, known, f.has(), left)
			}
		}
	}
}

// noSet is a policy in force that has no set while the fake has no types.
type noSet struct{ *fake }

func (n noSet) Sets() ([]kernel.SetInfo, error) {
	if n.types == nil {
		return []kernel.SetInfo{{Name: "other"}}, nil
	}
	return n.fake.Sets()
}

func (n noSet) DeleteFromSet(set string, elements ...[]string) (int, error) {
	k, err := n.fake.DeleteFromSet(set, elements...)
	if n.types == nil {
		return k, kernel.ErrNoSet
	}
	return k, err
}
