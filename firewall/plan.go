package firewall

import (
	"math/bits"

	"github.com/postern-fw/postern/firewall/filter"
)

// plan is a Program for frames of one kind, of which it is known beforehand where each field is: the shapes
// that such a frame can have, with all that is needed of them side by side.
type plan []planned

// planned is a shape in a plan.
type planned struct {
	shape *Shape // asked where table has no entries
	first int
	parts int
	bits  [maxNumbers]filter.Bits
	table table
	cands []planCandidate // those of the shape, in the order of table
	// only is the one key of a shape that has no other, as many have: it takes no table to find.
	only  [maxNumbers]uint64
	alone bool
}

// planCandidate is a rule that matches if match does.
type planCandidate struct {
	rule         int32
	final, never bool
	match        filter.KindMatcher
}

// newPlan makes the plan for frames of a kind.
func newPlan(prog *Program, k filter.Kind) (pl plan) {
	for _, s := range prog.Shapes {
		if p, ok := newPlanned(s, k); ok {
			pl = append(pl, p)
		}
	}
	return pl
}

// newPlanned is false for a shape that no frame of the kind has.
func newPlanned(s *Shape, k filter.Kind) (p planned, ok bool) {
	p = planned{shape: s, first: s.First, parts: len(s.Parts)}
	for _, part := range s.Parts {
		if part.Field.Never(k) {
			return p, false
		}
	}
	if s.numbers == nil {
		return p, true
	}
	for i, part := range s.Parts {
		spot, once, ok := filter.NewSpot(part.Field, k)
		if !ok || !once {
			return p, true
		}
		p.bits[i] = spot.Bits(^shiftedOnes(part.Bits))
	}
	p.table = newTable(len(s.Entries))
	for i := range s.numbers.table.entries {
		e := s.numbers.table.entries[i]
		if e.from == e.to {
			continue
		}
		for i := range p.parts {
			e.key[i] = p.bits[i].From(e.key[i])
		}
		*p.table.place(&e.key) = e
		p.only, p.alone = e.key, len(s.Entries) == 1
	}
	for i := range s.numbers.cands {
		c := &s.numbers.cands[i]
		left, _, never := filter.For(c.Rest, k)
		p.cands = append(p.cands, planCandidate{int32(c.Rule), c.final, never, filter.NewKindMatcher(left, k)})
	}
	return p, true
}

// decide is Program.first for a frame of the plan's kind.
func (pl plan) decide(p *filter.Packet, s *state) (best int, ok bool) {
	best = s.none
	for i := range pl {
		shape := &pl[i]
		if shape.first >= best {
			break
		}
		if shape.table.entries == nil {
			if best, ok = s.firstOf(shape.shape, p, s.sets, best); !ok {
				return best, false
			}
			continue
		}
		cands := shape.find(p)
		for i := range cands {
			c := &cands[i]
			if int(c.rule) >= best {
				break
			}
			if !c.matches(p, s) {
				continue
			}
			if !c.final {
				return best, false
			}
			best = int(c.rule)
			break
		}
	}
	return best, true
}

func (c *planCandidate) matches(p *filter.Packet, s *state) bool {
	return !c.never && (c.match.Twins && c.match.TwinsEqual(p) || c.match.Match(p, s.sets))
}

// find is Program.find for a frame of the plan's kind.
func (pl plan) find(p *filter.Packet, s *state, m *matches) {
	m.best = s.none
	for i := range pl {
		shape := &pl[i]
		if shape.first > m.best || m.over {
			return
		}
		if shape.table.entries == nil {
			s.findIn(shape.shape, p, s.sets, m)
			continue
		}
		cands := shape.find(p)
		for i := range cands {
			c := &cands[i]
			if int(c.rule) > m.best {
				break
			}
			if c.matches(p, s) {
				m.add(s.Policy.Rules[c.rule], int(c.rule))
			}
		}
	}
}

// has reports whether a frame has the only key.
func (s *planned) has(p *filter.Packet) bool {
	// Parts that a shape does not have are no bits, and a loop over the others would take longer.
	return (s.bits[0].Of(p)^s.only[0])|(s.bits[1].Of(p)^s.only[1])|(s.bits[2].Of(p)^s.only[2]) == 0
}

// find gives the candidates of a frame's key.
func (s *planned) find(p *filter.Packet) []planCandidate {
	if s.alone {
		if s.has(p) {
			return s.cands
		}
		return nil
	}
	key := [maxNumbers]uint64{s.bits[0].Of(p), s.bits[1].Of(p), s.bits[2].Of(p)}
	at := s.table.place(&key)
	return s.cands[at.from:at.to]
}

// table finds by a few numbers where in a list their candidates are: a hash table by open addressing.
type table struct {
	shift   uint8
	entries []entry
}

// entry is empty if from and to are the same.
type entry struct {
	key      [maxNumbers]uint64
	from, to uint32
}

// newTable makes room for n keys: at least half of the entries stay empty.
func newTable(n int) table {
	b := bits.Len(uint(2 * n))
	return table{uint8(64 - b), make([]entry, 1<<b)}
}

// place is where the key is, or the empty entry where it would be.
func (t *table) place(key *[maxNumbers]uint64) *entry {
	h := key[0]*0x9e37_79b9_7f4a_7c15 + key[1]*0xd6e8_feb8_6659_fd93 + key[2]*0xff51_afd7_ed55_8ccd
	for at := h >> (t.shift & 63); ; at++ {
		s := &t.entries[at&uint64(len(t.entries)-1)]
		if s.from == s.to || s.key == *key {
			return s
		}
	}
}
