// Package firewall turns a policy and a frame into a verdict. It holds the
// policy file, the engine-neutral Program made from it, live sets, limits and
// counters. It knows no socket, no interface and no kernel: engines know it.
package firewall

import (
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/postern-fw/postern/firewall/filter"
)

// Firewall is a program in force, with its live sets, limits and counters. It
// is safe for use by many goroutines. The zero value, and nil, drop everything.
type Firewall struct {
	replacing sync.Mutex
	state     atomic.Pointer[state]
}

// state is what one frame is judged by: it is read once, so that no frame sees
// half of one policy and half of another.
type state struct {
	// plans are the Program's, and none is how many rules there are: what each frame needs, near at hand.
	plans [filter.Kinds]plan
	none  int
	*Program
	sets     filter.Sets
	limits   []*limiter // by rule, nil without a limit
	counters []*counter // by rule, then the default's and the malformed frames'
	outcomes []outcome  // by rule, then the default's
}

// outcome is what a rule that ends the walk means, and the default, without looking at the rule itself.
type outcome struct {
	counter  *counter
	decision Decision
}

// New puts p in force.
func New(p *Policy) (*Firewall, error) {
	f := &Firewall{}
	return f, f.Replace(p)
}

// Replace puts p in force in one atomic step. Sets, limits and counters of what
// stays keep their state: elements that were added live; the limit of a rule
// with the same name and the same limit; the counters of a rule with the same
// name. On an error the policy in force is untouched.
func (f *Firewall) Replace(p *Policy) error {
	s := &state{Program: Compile(p), sets: filter.Sets{}}
	f.replacing.Lock()
	defer f.replacing.Unlock()
	old := f.state.Load()
	if old == nil {
		old = &state{Program: &Program{Policy: &Policy{}}, counters: []*counter{{}, {}}}
	}
	byName := map[string]int{}
	for i, r := range old.Policy.Rules {
		byName[r.Name] = i
	}
	keys := keysPerLimit(p.Rules)
	for _, r := range p.Rules {
		var l *limiter
		i, stays := byName[r.Name]
		if stays && reflect.DeepEqual(r.Limit, old.Policy.Rules[i].Limit) {
			l = old.limits[i]
		} else {
			l = newLimiter(r.Limit, keys)
		}
		c := &counter{}
		if stays {
			c = old.counters[i]
		}
		s.limits, s.counters = append(s.limits, l), append(s.counters, c)
	}
	s.counters = append(s.counters, old.counters[len(old.Policy.Rules):]...)
	for _, d := range p.Sets {
		set := newSet(d)
		if was, ok := old.sets[d.Name].(*Set); ok && reflect.DeepEqual(was.decl.Types, d.Types) {
			set.inherit(was)
		}
		s.sets[d.Name] = set
	}
	s.outcomes = s.makeOutcomes()
	s.plans, s.none = s.Program.plans, len(p.Rules)
	f.state.Store(s)
	return nil
}

func (s *state) makeOutcomes() (out []outcome) {
	for i, c := range s.counters[:len(s.Policy.Rules)+1] {
		var d Decision
		if i == len(s.Policy.Rules) {
			d.byDefault(s.Policy)
		} else if r := s.Policy.Rules[i]; r.Action.Terminal() {
			d.apply(r)
		}
		out = append(out, outcome{c, d})
	}
	return out
}

// Policy is the policy in force, nil if there is none.
func (f *Firewall) Policy() *Policy {
	if s := f.load(); s != nil {
		return s.Policy
	}
	return nil
}

func (f *Firewall) load() *state {
	if f == nil {
		return nil
	}
	return f.state.Load()
}

// UpdateSet calls fn with the named live set and reports whether there is one.
// No Replace happens meanwhile, so that no change is lost to it.
func (f *Firewall) UpdateSet(name string, fn func(*Set)) bool {
	f.replacing.Lock()
	defer f.replacing.Unlock()
	s := f.state.Load()
	if s == nil {
		return false
	}
	set, ok := s.sets[name].(*Set)
	if ok {
		fn(set)
	}
	return ok
}

// Counter is how often a rule matched.
type Counter struct {
	Rule          *Rule // nil: the default and malformed frames
	Frames, Bytes uint64
}

// Counters of every rule in order, then the default's and the malformed
// frames'.
func (f *Firewall) Counters() []Counter {
	s := f.load()
	if s == nil {
		return nil
	}
	out := make([]Counter, len(s.counters))
	for i, c := range s.counters {
		out[i] = c.read()
		if i < len(s.Policy.Rules) {
			out[i].Rule = s.Policy.Rules[i]
		}
	}
	return out
}
