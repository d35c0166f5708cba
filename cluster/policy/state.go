package policy

import (
	"maps"
	"slices"
	"strings"
)

// State is what is known of the keys that are followed.
type State struct {
	// Rollout is nil until one is known. What cannot be read does not take the place of what could.
	Rollout  *Rollout
	Revision int64 // of RolloutKey, 0 if it is not there
	// Driver is the lease of DriverKey, 0 if there is none.
	Driver int64
	// Leases are those of the nodes that are there.
	Leases   map[string]int64
	Reports  map[string]*Report
	Elements map[string]Element // by key
	// Bad says which keys cannot be read, and why.
	Bad map[string]string
}

// NewState is that in which nothing is known.
func NewState() *State {
	return &State{Leases: map[string]int64{}, Reports: map[string]*Report{}, Elements: map[string]Element{}, Bad: map[string]string{}}
}

// Learn takes in keys. reset says that those not among them are gone. It returns what cannot be read now.
func (s *State) Learn(reset bool, keys []Key) (bad []string) {
	if reset {
		*s = State{Rollout: s.Rollout, Leases: map[string]int64{}, Reports: map[string]*Report{}, Elements: map[string]Element{}, Bad: map[string]string{}}
	}
	for _, k := range keys {
		delete(s.Bad, k.Name)
		if err := s.learn(k); err != nil && len(s.Bad) < 1000 {
			why := Shown(err.Error(), 512)
			s.Bad[k.Name] = why
			bad = append(bad, why)
		}
	}
	return bad
}

func (s *State) learn(k Key) error {
	report, isReport := strings.CutPrefix(k.Name, ReportsKey)
	node, isNode := strings.CutPrefix(k.Name, NodesKey)
	switch {
	case k.Name == RolloutKey:
		s.Revision = k.Revision
		if k.Deleted {
			s.Revision = 0
			return nil
		}
		r, err := ParseRollout(k.Value)
		if err == nil {
			s.Rollout = r
		}
		return err
	case k.Name == DriverKey:
		s.Driver = k.Lease
		if k.Deleted {
			s.Driver = 0
		}
	case isReport && k.Deleted:
		delete(s.Reports, report)
	case isReport:
		r, err := ParseReport(report, k.Value)
		if delete(s.Reports, report); err == nil {
			s.Reports[report] = r
		}
		return err
	case isNode && (k.Deleted || k.Lease == 0 || nodeName(node) != nil):
		delete(s.Leases, node) // package cluster tells what is wrong with it
	case isNode:
		s.Leases[node] = k.Lease
	case strings.HasPrefix(k.Name, SetsKey):
		delete(s.Elements, k.Name)
		if k.Deleted {
			return nil
		}
		e, err := ParseElement(k)
		if err != nil {
			return &badKey{k.Name, err}
		}
		if len(s.Elements) < MaxElements {
			s.Elements[k.Name] = e
			return nil
		}
		return &badKey{k.Name, errTooMany}
	}
	return nil
}

// Present are the nodes that are there and take part, sorted.
func (s *State) Present() (list []string) {
	for node, lease := range s.Leases {
		if r := s.Reports[node]; r != nil && r.Lease == lease {
			list = append(list, node)
		}
	}
	slices.Sort(list)
	return list
}

// Attempt is what a node told last.
func (s *State) Attempt(node string) *Attempt {
	if r := s.Reports[node]; r != nil {
		return r.Attempt
	}
	return nil
}

// Faults are what cannot be read, sorted.
func (s *State) Faults() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(s.Bad)) {
		list = append(list, s.Bad[name])
	}
	return list
}
