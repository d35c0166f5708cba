package firewall

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// finding is a rule that can never match, and why.
type finding struct {
	at        *yaml.Node
	msg, hint string
}

// unreachable finds the rules whose every alternative an earlier terminal rule
// without a limit decides first. It compares constraints one by one: a rule
// that only several earlier ones cover together is not found.
func unreachable(p *Policy) (out []finding) {
	var all *Rule
	seen := map[string]*Rule{}
	for _, r := range p.Rules {
		by := all
		alts := alternatives(r.Match)
		if by == nil {
			for i := range alts {
				if by = seen[alts[i].whole()]; by == nil {
					break
				}
			}
		}
		if by != nil {
			out = append(out, finding{r.node, fmt.Sprintf("rule %q can never match: rule %q in line %d decides all its frames first", r.Name, by.Name, by.Line),
				"move it up, or remove it"})
			continue
		}
		if !r.Action.Terminal() || r.Limit != nil {
			continue
		}
		for i := range alts {
			if w := alts[i].whole(); w == "" {
				all = r
			} else if seen[w] == nil {
				seen[w] = r
			}
		}
	}
	return out
}

// whole names a conjunction by all it asks for.
func (c *conjunction) whole() string {
	s := c.shape()
	if len(c.keys) > 0 {
		s += fmt.Sprintf("%x", c.key())
	}
	if e := c.residual(); e != nil {
		s += " " + e.String()
	}
	return s
}
