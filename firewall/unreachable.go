package firewall

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/firewall/filter"
)

// finding is a rule that can never match, and why.
type finding struct {
	at        *yaml.Node
	msg, hint string
}

// unreachable finds the rules that no frame can be like, and those of which an
// earlier terminal rule without a limit decides every alternative first. What
// only several alternatives cover together is not found.
func unreachable(p *Policy) (out []finding) {
	var earlier deciders
	most := alternativesEach(p)
	for _, r := range p.Rules {
		alts := alternatives(r.Match, most)
		var by *Rule
		open, possible := false, false
		var possibles []*conjunction
		for i := range alts {
			alts[i].shape() // puts the keys into order
			f := factsOf(&alts[i])
			if f.never {
				continue
			}
			possible = true
			possibles = append(possibles, &alts[i])
			if first := earlier.decides(f); first == nil {
				open = true
			} else if by == nil {
				by = first
			}
		}
		switch {
		case !possible:
			out = append(out, finding{r.node, fmt.Sprintf("rule %q can never match: no frame can be what it asks for", r.Name),
				"its conditions contradict each other; perhaps `||` was meant"})
		case !open:
			out = append(out, finding{r.node, fmt.Sprintf("rule %q can never match: rule %q in line %d decides all its frames first", r.Name, by.Name, by.Line),
				"move it up, or remove it"})
		case r.Action.Terminal() && r.Limit == nil:
			for _, c := range possibles {
				earlier.add(c, r)
			}
		}
	}
	return out
}

// maxDeciderShapes and maxDeciders bound the search: of a policy with more
// shapes, or more conditions behind one key, not every unreachable rule is found.
const maxDeciderShapes, maxDeciders = 256, 16

// deciders are conjunctions that decide, by the fields they compare.
type deciders struct {
	shapes []*deciderShape
	byName map[string]*deciderShape
}

type deciderShape struct {
	parts   []KeyPart
	entries map[string][]decider
}

type decider struct {
	rest []filter.Expr
	rule *Rule
}

func (d *deciders) add(c *conjunction, r *Rule) {
	name := c.shape()
	s := d.byName[name]
	if s == nil {
		if len(d.shapes) == maxDeciderShapes {
			return
		}
		s = &deciderShape{entries: map[string][]decider{}}
		for _, k := range c.keys {
			s.parts = append(s.parts, k.part)
		}
		if d.byName == nil {
			d.byName = map[string]*deciderShape{}
		}
		d.byName[name] = s
		d.shapes = append(d.shapes, s)
	}
	if k := c.key(); len(s.entries[k]) < maxDeciders {
		s.entries[k] = append(s.entries[k], decider{c.rest, r})
	}
}

// decides is the first rule found that decides all frames of which f holds.
func (d *deciders) decides(f *facts) *Rule {
	for _, s := range d.shapes {
		key, ok := f.under(s.parts)
		if !ok {
			continue
		}
	next:
		for _, e := range s.entries[key] {
			for _, x := range e.rest {
				if !f.implies(x) {
					continue next
				}
			}
			return e.rule
		}
	}
	return nil
}
