package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel"
)

// Reserved are the sets of the agent's fence: nobody else puts anything there.
var Reserved = []string{"vips", "addresses"}

// sets is what a node knows of the elements of the cluster.
type sets struct {
	// changed says that the sets may not be as they should; followed that etcd told which elements there are, and listed
	// that it told of others since permanent was made.
	changed, followed, listed bool
	again                     int64 // when it is tried again, 0 if all went well
	// permanent are those from the disk, until then.
	permanent map[string]Element
	ends      map[int64]end // of leases
	asking    map[int64]bool
	added     map[string]addition // by key
	in        ID                  // the version into whose sets they were added
	unsaved   bool                // permanent is not what the disk has
	save      int64               // when the disk is written to again

	// The policy that was parsed last, and how often one was.
	parsed   *firewall.Policy
	parsedID ID
	parses   int
}

// end is when a lease is over here, and when to ask for it again.
type end struct{ deadline, ask int64 }

// addition is an element that was added, until a deadline.
type addition struct {
	Element
	deadline int64
}

func newSets() sets {
	return sets{permanent: map[string]Element{}, ends: map[int64]end{}, asking: map[int64]bool{}, added: map[string]addition{}}
}

// lasting are the elements that a node keeps on disk, sorted.
func (s *sets) lasting() (list []Element) {
	for _, k := range slices.Sorted(maps.Keys(s.permanent)) {
		list = append(list, s.permanent[k])
	}
	return list
}

// syncSets makes the sets of what is in force hold the elements of the cluster.
func (n *Node) syncSets(ctx context.Context) {
	s := &n.sets
	n.askEnds(ctx)
	in, id := n.version, n.current
	if n.trial != nil {
		in, id = n.trial.version, n.trial.id
	}
	if s.again != 0 && n.now >= s.again {
		s.changed, s.again = true, 0
	}
	if !s.changed {
		return
	}
	s.changed = false
	if s.followed && s.listed {
		s.list(n.state.Elements)
	}
	if in == nil {
		s.added = map[string]addition{}
		return
	}
	if id != s.in {
		// What goes on from one policy to the next is there already, and is added to no purpose.
		for k, a := range s.added {
			a.deadline = -1
			s.added[k] = a
		}
		s.in = id
	}
	p := s.policy(in, id)
	if p == nil {
		return
	}
	n.fault("sets", errors.Join(n.removeElements(p), n.addElements(p)))
}

// list takes in which elements there are.
func (s *sets) list(elements map[string]Element) {
	was := s.permanent
	s.permanent, s.listed = map[string]Element{}, false
	for k, e := range elements {
		if e.Lease == 0 {
			s.permanent[k] = e
			_, there := was[k]
			s.unsaved = s.unsaved || !there
		}
	}
	s.unsaved = s.unsaved || len(was) != len(s.permanent)
}

// policy is a version's, parsed once. It is in force, so it can be.
func (s *sets) policy(v *Version, id ID) *firewall.Policy {
	if s.parsed == nil || s.parsedID != id {
		s.parsed, _, _ = firewall.Parse("", []byte(v.Text))
		s.parsedID = id
		s.parses++
	}
	return s.parsed
}

// wanted are the elements that there are to be now.
func (n *Node) wanted() map[string]addition {
	out := map[string]addition{}
	for k, e := range n.sets.permanent {
		out[k] = addition{e, 0}
	}
	for k, e := range n.state.Elements {
		if x, known := n.sets.ends[e.Lease]; e.Lease != 0 && known && x.deadline > n.now {
			out[k] = addition{e, x.deadline}
		}
	}
	return out
}

// removeElements takes out what is not wanted any more, but for what the policy has itself, or cannot have.
func (n *Node) removeElements(p *firewall.Policy) (err error) {
	want := n.wanted()
	for k, a := range n.sets.added {
		if _, stays := want[k]; stays {
			continue
		}
		if declared, wrong := fits(p, a.Element); declared || wrong != nil {
			delete(n.sets.added, k)
			continue
		}
		_, e := n.Enforcer.DeleteFromSet(a.Set, a.Parts)
		if e == nil || errors.Is(e, kernel.ErrNoSet) || errors.Is(e, kernel.ErrNothing) {
			delete(n.sets.added, k)
		} else {
			n.sets.again = n.now + int64(time.Second)
			err = fmt.Errorf("set %s: %w", a.Set, e)
		}
	}
	return err
}

// addElements adds what is not there yet, all of a set with one deadline at once.
func (n *Node) addElements(p *firewall.Policy) error {
	type batch struct {
		set      string
		deadline int64
	}
	batches := map[batch][]string{} // keys
	wrong := map[string]error{}
	want := n.wanted()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		a := want[k]
		if was, there := n.sets.added[k]; there && was.deadline == a.deadline {
			continue
		}
		if declared, err := fits(p, a.Element); err != nil {
			wrong[a.Set] = err
		} else if !declared {
			b := batch{a.Set, a.deadline}
			batches[b] = append(batches[b], k)
		}
	}
	for b, keys := range batches {
		var elements [][]string
		for _, k := range keys {
			elements = append(elements, want[k].Parts)
		}
		if err := n.Enforcer.AddToSet(b.set, b.deadline, elements...); err != nil {
			wrong[b.set] = fmt.Errorf("set %s: %w", b.set, err)
			n.sets.again = n.now + int64(time.Second)
			continue
		}
		for _, k := range keys {
			n.sets.added[k] = want[k]
		}
	}
	var errs []error
	for _, set := range slices.Sorted(maps.Keys(wrong)) {
		errs = append(errs, wrong[set])
	}
	return errors.Join(errs...)
}

// fits says whether an element can be in its set, and whether the policy has it there itself.
func fits(p *firewall.Policy, e Element) (declared bool, err error) {
	if slices.Contains(Reserved, e.Set) {
		return false, fmt.Errorf("set %s is the fence's: nobody else puts anything there", e.Set)
	}
	for _, d := range p.Sets {
		if d.Name != e.Set {
			continue
		}
		parsed, err := d.Element(e.Parts...)
		if err != nil {
			return false, fmt.Errorf("set %s: element %s: %w", e.Set, e, err)
		}
		return slices.ContainsFunc(d.Elements, func(x firewall.Element) bool { return reflect.DeepEqual(x.Parts, parsed.Parts) }), nil
	}
	return false, fmt.Errorf("set %s: the policy in force has none of that name", e.Set)
}

// askEnds finds out when leases are over, and again when much of what remained has passed: somebody may renew them.
func (n *Node) askEnds(ctx context.Context) {
	s := &n.sets
	leases := map[int64]bool{}
	for _, e := range n.state.Elements {
		if e.Lease != 0 {
			leases[e.Lease] = true
		}
	}
	maps.DeleteFunc(s.ends, func(l int64, _ end) bool { return !leases[l] })
	for l := range leases {
		if s.asking[l] || n.now < s.ends[l].ask || len(s.asking) >= 16 {
			continue
		}
		s.asking[l] = true
		sent := n.Now() // before the request: what happens to it later makes the element no older
		async(ctx, n, func(ctx context.Context) (time.Duration, error) { return n.Store.Remaining(ctx, l) }, func(d time.Duration, err error) {
			delete(s.asking, l)
			was := s.ends[l]
			if err != nil {
				was.ask = n.now + int64(time.Second)
			} else {
				was = end{max(was.deadline, sent+int64(d)), sent + max(int64(d)*2/3, int64(time.Second))}
			}
			s.ends[l], s.changed = was, true
		})
	}
}
