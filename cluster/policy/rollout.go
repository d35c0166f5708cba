package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Stage is how far a roll-out is.
type Stage string

// The stages, in their order; Done or Failed is the last.
const (
	Put    Stage = "put"   // nobody has been asked yet
	First  Stage = "first" // one node tries it
	Rest   Stage = "rest"  // all others do
	Done   Stage = "done"
	Failed Stage = "failed"
)

// Rollout is which version is wanted. There is one, that of the latest version.
type Rollout struct {
	ID
	// Good is the last one that all took; 0 is none.
	Good ID `json:"good"`
	// Stage began at Since, by the clock of who wrote it: for people.
	Stage Stage     `json:"stage"`
	Since time.Time `json:"since"`
	// First is the node that is the first; "" until it is chosen.
	First string `json:"first,omitempty"`
	// Nodes are the others that were there when their turn came.
	Nodes []string `json:"nodes,omitempty"`
	// Cause says why it failed.
	Cause string `json:"cause,omitempty"`
}

const maxCause = 4096

// ParseRollout reads the value of RolloutKey.
func ParseRollout(value []byte) (*Rollout, error) {
	r := &Rollout{}
	err := strict(value, maxSmall*4, r)
	if err == nil {
		err = errors.Join(r.ID.check(), r.Good.check(), line("cause", r.Cause, maxCause))
		for _, n := range r.Nodes {
			err = errors.Join(err, nodeName(n))
		}
		if r.First != "" {
			err = errors.Join(err, nodeName(r.First))
		}
	}
	switch {
	case err != nil:
	case r.Number == 0:
		err = errors.New("it names no version")
	case !slices.Contains([]Stage{Put, First, Rest, Done, Failed}, r.Stage):
		err = fmt.Errorf("unknown stage %.20q", r.Stage)
	case (r.Good == r.ID) != (r.Stage == Done) || r.Good.Number > r.Number:
		err = fmt.Errorf("version %d cannot be the last good one at stage %q of version %d", r.Good.Number, r.Stage, r.Number)
	case r.First == "" && (r.Stage == First || r.Stage == Rest):
		err = errors.New("no node is the first")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", RolloutKey, err)
	}
	return r, nil
}

// Over says whether nothing happens any more.
func (r *Rollout) Over() bool { return r.Stage == Done || r.Stage == Failed }

// Target is the version that a node is to have now.
func (r *Rollout) Target(node string) ID {
	turn := r.Stage == Done ||
		r.Stage == First && node == r.First ||
		r.Stage == Rest && (node == r.First || slices.Contains(r.Nodes, node))
	if turn {
		return r.ID
	}
	return r.Good
}

// Scene is what the driver of a roll-out sees.
type Scene struct {
	// Present are the nodes that are there and take part, sorted.
	Present []string
	// Attempt is what a node told last of a version that it was to take, nil if nothing.
	Attempt func(node string) *Attempt
	// Waited is for how long the stage has been seen, Patience for how long it may last.
	Waited, Patience time.Duration
	// Now is for people.
	Now time.Time
}

// Next is the next step of a roll-out, nil while there is none. It depends on what it is given alone,
// so any node can go on where another one died.
func (r Rollout) Next(s Scene) *Rollout {
	late := s.Waited > s.Patience
	switch r.Stage {
	case Put:
		switch {
		case r.First == "" && len(s.Present) > 0:
			r.First = s.Present[0]
		case r.First == "":
			return nil // whoever comes first will be the first
		case !slices.Contains(s.Present, r.First):
			if !late {
				return nil
			}
			return r.fail(s, r.First+", which was to be the first, is not there")
		}
		return r.to(First, s)
	case First:
		if step := r.judge(s, r.First, late); step != nil || !r.took(s, r.First) {
			return step
		}
		for _, n := range s.Present {
			if n != r.First {
				r.Nodes = append(slices.Clip(r.Nodes), n)
			}
		}
		if len(r.Nodes) == 0 {
			return r.done(s)
		}
		return r.to(Rest, s)
	case Rest:
		all := true
		for _, n := range r.Nodes {
			if step := r.judge(s, n, late); step != nil {
				return step
			}
			all = all && r.took(s, n)
		}
		if all {
			return r.done(s)
		}
	}
	return nil
}

func (r Rollout) took(s Scene, node string) bool {
	a := s.Attempt(node)
	return a != nil && a.ID == r.ID && a.Error == ""
}

// judge is the end of a roll-out that fails at a node, nil if it does not, or not yet.
func (r Rollout) judge(s Scene, node string, late bool) *Rollout {
	a := s.Attempt(node)
	switch {
	case a != nil && a.ID == r.ID && a.Error != "":
		return r.fail(s, node+": "+a.Error)
	case late && !r.took(s, node) && !slices.Contains(s.Present, node):
		return r.fail(s, fmt.Sprintf("%s: it has not been heard of for %v", node, s.Waited.Round(time.Second)))
	case late && !r.took(s, node):
		return r.fail(s, fmt.Sprintf("%s: it has not taken it after %v", node, s.Waited.Round(time.Second)))
	}
	return nil
}

func (r Rollout) to(stage Stage, s Scene) *Rollout {
	r.Stage, r.Since = stage, s.Now
	return &r
}

func (r Rollout) done(s Scene) *Rollout {
	r.Good, r.Nodes = r.ID, nil
	return r.to(Done, s)
}

func (r Rollout) fail(s Scene, cause string) *Rollout {
	r.Cause = Shown(cause, maxCause)
	return r.to(Failed, s)
}

// Abort is the end of a roll-out that somebody does not want any more.
func (r Rollout) Abort(by string, now time.Time) *Rollout {
	return r.fail(Scene{Now: now}, "called off by "+by)
}

// Outcome is that of a roll-out that is over.
func (r *Rollout) Outcome() *Outcome {
	return &Outcome{Version: r.Number, Done: r.Stage == Done, First: r.First, Cause: r.Cause, Time: r.Since}
}

// Shown makes a text one that line accepts.
func Shown(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit-3], "") + "..."
	}
	return s
}
