package firewall

import (
	"sort"

	"github.com/postern-fw/postern/firewall/filter"
)

// Program is a policy in its engine-neutral decision form: shapes, each a
// look-up by the values of the fields it compares (tuple-space search). It is
// immutable.
type Program struct {
	Policy *Policy
	// Shapes are ordered by their lowest rule, so that the walk may stop at the
	// first shape that can only hold later rules than the one found.
	Shapes []*Shape

	plans [filter.Kinds]plan
}

// Shape is the conjunctions that compare the same bits of the same fields.
type Shape struct {
	Parts []KeyPart
	// First is the lowest rule in the shape.
	First int
	// Entries maps the key of Parts to candidates, in rule order.
	Entries map[string][]Candidate

	numbers *numbers // nil where they are no few numbers
}

// final reports whether nothing behind the rule can count once it matches.
func (r *Rule) final() bool { return r.Action.Terminal() && r.Limit == nil }

// KeyPart is one field of a key, of which the first Bits bits count.
type KeyPart struct {
	Field *filter.Field
	Bits  int
}

// Candidate is a rule that matches if Rest does; a nil Rest always does.
type Candidate struct {
	Rule int
	Rest filter.Expr

	final bool
	match *filter.Matcher // of Rest
}

// Compile makes the decision form of a policy.
func Compile(p *Policy) *Program {
	prog, shapes := &Program{Policy: p}, map[string]*Shape{}
	most := alternativesEach(p)
	for i, r := range p.Rules {
		for _, c := range alternatives(r.Match, most) {
			s := shapes[c.shape()]
			if s == nil {
				s = &Shape{First: i, Entries: map[string][]Candidate{}}
				for _, k := range c.keys {
					s.Parts = append(s.Parts, k.part)
				}
				shapes[c.shape()] = s
				prog.Shapes = append(prog.Shapes, s)
			}
			k := c.key()
			rest := c.residual()
			s.Entries[k] = append(s.Entries[k], Candidate{i, rest, r.final(), filter.NewMatcher(rest)})
		}
	}
	for _, s := range prog.Shapes {
		s.numbers = newNumbers(s)
	}
	sort.SliceStable(prog.Shapes, func(i, j int) bool { return prog.Shapes[i].First < prog.Shapes[j].First })
	for k := filter.KindOther + 1; k < filter.Kinds; k++ {
		prog.plans[k] = newPlan(prog, k)
	}
	return prog
}

// maxMatches bounds the rules kept of one walk; a frame that more rules touch
// takes the linear walk, which decides the same.
const maxMatches = 32

// matches collects, in rule order, the rules that match up to the first
// terminal one without a limit.
type matches struct {
	rules [maxMatches]int32
	n     int
	best  int // lowest unlimited terminal rule
	over  bool
}

// first is the deciding rule's number, or how many rules there are if none decides. It is false
// if a rule may match that does not end the walk, or only within its limit: then find has to tell.
func (prog *Program) first(p *filter.Packet, sets filter.Sets) (best int, ok bool) {
	best = len(prog.Policy.Rules)
	for _, s := range prog.Shapes {
		if s.First >= best {
			break
		}
		if best, ok = prog.firstOf(s, p, sets, best); !ok {
			return best, false
		}
	}
	return best, true
}

// firstOf is first for one shape, where best is what is known already.
func (prog *Program) firstOf(s *Shape, p *filter.Packet, sets filter.Sets, best int) (int, bool) {
	if s.numbers == nil {
		return prog.firstOfAny(s, p, sets, best)
	}
	cands, ok := s.numbers.candidates(p)
	if !ok {
		return prog.firstOfAny(s, p, sets, best)
	}
	for i := range cands {
		c := &cands[i]
		if c.Rule >= best {
			break
		}
		if c.match.Match(p, sets) {
			return c.Rule, c.final
		}
	}
	return best, true
}

// firstOfAny is firstOf for a shape of any fields.
func (prog *Program) firstOfAny(s *Shape, p *filter.Packet, sets filter.Sets, best int) (int, bool) {
	m := matches{best: best}
	prog.findAny(s, p, sets, &m)
	for _, rule := range m.rules[:m.n] {
		if !prog.Policy.Rules[rule].final() {
			return best, false
		}
	}
	return m.best, !m.over
}

// find fills m.
func (prog *Program) find(p *filter.Packet, sets filter.Sets, m *matches) {
	m.best = len(prog.Policy.Rules)
	for _, s := range prog.Shapes {
		if s.First > m.best || m.over {
			return
		}
		prog.findIn(s, p, sets, m)
	}
}

// findIn is find for one shape.
func (prog *Program) findIn(s *Shape, p *filter.Packet, sets filter.Sets, m *matches) {
	if s.numbers != nil {
		if cands, ok := s.numbers.candidates(p); ok {
			prog.consider(cands, p, sets, m)
			return
		}
	}
	prog.findAny(s, p, sets, m)
}

// findAny keeps the buffer of a key away from those that need none.
func (prog *Program) findAny(s *Shape, p *filter.Packet, sets filter.Sets, m *matches) {
	var buf [keyBytes]byte
	s.probe(prog, p, sets, m, buf[:0], 0)
}

// consider adds the candidates that match.
func (prog *Program) consider(cands []Candidate, p *filter.Packet, sets filter.Sets, m *matches) {
	for i := range cands {
		c := &cands[i]
		if c.Rule > m.best {
			return
		}
		if c.match.Match(p, sets) {
			m.add(prog.Policy.Rules[c.Rule], c.Rule)
		}
	}
}

// probe builds the key part by part; a field with several occurrences tries
// each of them.
func (s *Shape) probe(prog *Program, p *filter.Packet, sets filter.Sets, m *matches, key []byte, part int) {
	if part == len(s.Parts) {
		prog.consider(s.Entries[string(key)], p, sets, m)
		return
	}
	k := s.Parts[part]
	for i := 0; ; i++ {
		v, ok := k.Field.Value(p, i)
		if !ok {
			return
		}
		if next, ok := appendKey(key, k.Field.Type, v, k.Bits); ok {
			s.probe(prog, p, sets, m, next, part+1)
		}
		if !k.Field.Many {
			return
		}
	}
}

// add puts a rule in its place; a rule may come by several alternatives.
func (m *matches) add(r *Rule, rule int) {
	if r.final() {
		m.best = min(m.best, rule)
	}
	at := m.n
	for at > 0 && m.rules[at-1] >= int32(rule) {
		if m.rules[at-1] == int32(rule) {
			return
		}
		at--
	}
	if m.n == maxMatches {
		m.over = true
		return
	}
	copy(m.rules[at+1:m.n+1], m.rules[at:m.n])
	m.rules[at] = int32(rule)
	m.n++
}
