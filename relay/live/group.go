package live

import (
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

// Group is the sets that hold the same bindings, such as one for clients' ports and one
// for the way out. It belongs to one goroutine.
type Group struct {
	Sets []*Set
	// leaving are bindings that have ended and may still be in one of them.
	leaving []binding.Binding
	// force is the policy that was in force at the last Look.
	force struct {
		generation uint64
		since      time.Time
	}
}

// Look finds out whether another policy has come into force, whose sets may lack bindings, as after a flush.
// Where that is not known they may as well.
func (g *Group) Look() {
	if len(g.Sets) == 0 {
		return
	}
	status, err := g.Sets[0].sets.Status()
	if err != nil {
		for _, s := range g.Sets {
			s.behind = true
		}
		return
	}
	changed := status.Generation != g.force.generation || !status.Since.Equal(g.force.since)
	g.force.generation, g.force.since = status.Generation, status.Since
	for _, s := range g.Sets {
		s.look(changed, status.Pending != nil && !status.Pending.RolledBack)
	}
}

// Behind says that one of the sets may lack bindings, or have some that have ended.
func (g *Group) Behind() bool {
	for _, s := range g.Sets {
		if s.behind {
			return true
		}
	}
	return false
}

// Leave takes bindings that have ended before; Sync takes them out.
func (g *Group) Leave(list []binding.Binding) {
	g.leaving = append(g.leaving, list...)
	for _, s := range g.Sets {
		s.leaving = append(s.leaving, list...)
	}
}

// Change takes bindings out that have ended, and puts new ones in. Those that it returns are in no
// set any more.
func (g *Group) Change(ended []binding.Binding, changes []binding.Change) (left []binding.Binding) {
	g.leaving = append(g.leaving, ended...)
	for _, s := range g.Sets {
		s.Change(ended, changes)
	}
	return g.left()
}

// Sync does so with all that is held, as often as one is behind.
func (g *Group) Sync(all []binding.Binding) (left []binding.Binding) {
	for _, s := range g.Sets {
		if s.behind {
			s.Sync(all)
		}
	}
	return g.left()
}

func (g *Group) left() (list []binding.Binding) {
	for _, s := range g.Sets {
		if len(s.leaving)+len(s.gone) > 0 {
			return nil
		}
	}
	list, g.leaving = g.leaving, nil
	return list
}
