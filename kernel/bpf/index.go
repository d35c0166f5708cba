package bpf

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sort"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// A policy of more than a few rules is decided by look-ups, one for each shape of
// its Program, so that the cost is flat in the number of rules: rules that compare
// the same bits of the same fields share a hash map. A look-up gives candidates, and
// the lowest rule among those whose rest is true is the next one to be carried out:
// sBest, of the rules from sFrom on.

// linearRules is how many rules are rather looked at one after the other.
const linearRules = 12

// inlineCandidates is how many candidates of a shape are rather compared in code.
const inlineCandidates = 4

// maxShapeMaps is how many shapes have a map: a program may use 64 maps, and sets
// need theirs.
const maxShapeMaps = 24

// candidate is a rule of a shape, with the key that leads to it.
type candidate struct {
	firewall.Candidate
	key string
}

// shape is a firewall.Shape with what is emitted for it.
type shape struct {
	*firewall.Shape
	number int
	all    []candidate // by rule
	off    []int       // by part: where it begins in the key
	size   int
	mapped bool
	table  *table // how the map is laid out, nil if it is a hash map
	// sameRest is what every candidate has left, nil if they differ.
	sameRest filter.Expr
}

func (s *shape) mapName() string   { return fmt.Sprintf("shape_%d", s.number) }
func (s *shape) probeName() string { return fmt.Sprintf("probe_%d", s.number) }
func (s *shape) funcName() string  { return fmt.Sprintf("match_%d", s.number) }

// layoutShapes decides which shapes get maps.
func layoutShapes(p *firewall.Program) []*shape {
	var out []*shape
	for i, fs := range p.Shapes {
		s := &shape{Shape: fs, number: i}
		// In order, so that all programs of a policy are laid out alike.
		for _, k := range slices.Sorted(maps.Keys(fs.Entries)) {
			for _, c := range fs.Entries[k] {
				s.all = append(s.all, candidate{c, k})
			}
		}
		sort.SliceStable(s.all, func(i, j int) bool { return s.all[i].Rule < s.all[j].Rule })
		for _, part := range fs.Parts {
			s.off = append(s.off, s.size)
			s.size += shapeBytes(part.Field)
		}
		out = append(out, s)
	}
	bySize := slices.Clone(out)
	sort.SliceStable(bySize, func(i, j int) bool { return len(bySize[i].Entries) > len(bySize[j].Entries) })
	for i, s := range bySize {
		s.mapped = i < maxShapeMaps && len(s.Parts) > 0 && len(s.all) > inlineCandidates
	}
	return out
}

// shapeBytes is the room for a field in the key of a shape.
func shapeBytes(f *filter.Field) int {
	if f.Type == filter.TypeIPv4 || f.Type == filter.TypeBool || f.Type == filter.TypeUint && f.Bits <= 32 && f.Bits > 0 {
		return 4
	}
	return partBytes(f.Type)
}

// index emits the look-ups; what ends the walk goes to finish.
func (g *gen) index(c *code, finish label) {
	g.shapes = layoutShapes(g.prog)
	g.restID = map[string]int{}
	g.shapeContents()
	steps := uint64(1)
	for _, r := range g.prog.Policy.Rules {
		if !r.Action.Terminal() || r.Limit != nil {
			steps++
		}
	}
	g.again = steps > 1
	g.restFunctions()
	if !g.again {
		none := c.label()
		g.best(c, none)
		g.carryOut(c, none, finish)
		c.mark(none)
		return
	}
	c.sti(sFrom, 0, asm.Word)
	g.needs(fnStep, g.step)
	c.imm(asm.R1, steps)
	c.loop(fnStep)
	c.ld(asm.R0, sFound, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, finish)
}

// fnStep is the callback that finds the next rule and carries it out, where the walk may
// go on behind a rule. sFound becomes 1 if that ended the walk.
const fnStep = fnEach + "step"

func (g *gen) step() *code {
	c := newCode(fnStep)
	none, next, decided := c.label(), c.label(), c.label()
	c.callback()
	g.best(c, none)
	g.carryOut(c, next, decided)
	c.mark(decided)
	c.sti(sFound, 1, asm.Word)
	c.retImm(1)
	c.mark(none)
	c.sti(sFound, 0, asm.Word)
	c.retImm(1)
	c.mark(next)
	c.ld(asm.R3, sBest, asm.Word)
	c.emit(asm.Add.Imm(asm.R3, 1))
	c.st(sFrom, asm.R3, asm.Word)
	c.retImm(0)
	return c
}

// best finds the next rule, and puts it into R3; it goes to none if there is none.
func (g *gen) best(c *code, none label) {
	rules := len(g.prog.Policy.Rules)
	c.sti(sBest, int64(rules), asm.Word)
	mapped := 0
	for _, s := range g.shapes {
		if s.mapped {
			mapped++
		}
	}
	for i := 0; i < len(g.shapes); {
		if s := g.shapes[i]; s.mapped {
			i++
			if mapped == 1 && s.many() < 0 {
				g.matchHere(c, s) // a call costs as much as the look-up
				continue
			}
			g.needs(s.funcName(), func() *code { return g.match(s) })
			c.call(s.funcName())
			continue
		}
		n := 0
		for i+n < len(g.shapes) && !g.shapes[i+n].mapped {
			n++
		}
		for _, name := range g.inline(g.shapes[i : i+n]) {
			c.call(name)
		}
		i += n
	}
	c.ld(asm.R3, sBest, asm.Word)
	c.jif(asm.JGE, asm.R3, uint64(rules), none)
}

// inline emits functions that compare the candidates of shapes in code, and gives
// their names.
func (g *gen) inline(shapes []*shape) (names []string) {
	var c *code
	var done label
	end := func() {
		if c != nil {
			c.mark(done)
			c.retImm(0)
		}
	}
	for _, s := range shapes {
		var out label // of the shape, in this function
		for i, cand := range s.all {
			fresh := c == nil || len(c.ins) >= functionSize
			if fresh {
				end()
				c = newCode(fmt.Sprintf("%s_%d", s.funcName(), i))
				f := c
				g.needs(c.name, func() *code { return f })
				names = append(names, c.name)
				c.prologue()
				done = c.label()
			}
			if fresh || i == 0 {
				out = c.label()
			}
			g.inlineCandidate(c, s, cand, out, done)
			if i == len(s.all)-1 || len(c.ins) >= functionSize {
				c.mark(out)
			}
		}
	}
	end()
	return names
}

// inlineCandidate makes the candidate the best if it is true, and goes to out then; to
// done if no candidate of this shape or of those behind it can be better.
func (g *gen) inlineCandidate(c *code, s *shape, cand candidate, out, done label) {
	g.where = fmt.Sprintf("rule %q", g.prog.Policy.Rules[cand.Rule].Name)
	hit, next := c.label(), c.label()
	c.ld(asm.R0, sBest, asm.Word)
	c.jif(asm.JLE, asm.R0, uint64(s.First), done)
	if cand.Rule != s.First {
		c.jif(asm.JLE, asm.R0, uint64(cand.Rule), out)
	}
	if g.again {
		c.ld(asm.R0, sFrom, asm.Word)
		c.jif(asm.JGT, asm.R0, uint64(cand.Rule), next)
	}
	g.whole(c, s.expr(cand), hit, next)
	c.mark(hit)
	c.sti(sBest, int64(cand.Rule), asm.Word)
	c.ja(out)
	c.mark(next)
}

// expr is a candidate as an expression: its key's parts and its rest.
func (s *shape) expr(c candidate) filter.Expr {
	and := &filter.And{}
	for i, v := range s.values(c.key) {
		part := s.Parts[i]
		lo := filter.Const{Type: part.Field.Type, Value: v, Prefix: filter.Full}
		hi := lo
		switch {
		case part.Field.Type.Numeric() && part.Bits < 64:
			hi.Num |= ^uint64(0) >> part.Bits
		case part.Field.Type == filter.TypeIPv6 && part.Bits < 128:
			lo.Prefix = part.Bits
			hi = lo
		}
		and.X = append(and.X, &filter.In{Fields: []filter.Ref{{Field: part.Field}}, Elements: []filter.Range{{Lo: lo, Hi: hi}}})
	}
	if c.Rest != nil {
		and.X = append(and.X, c.Rest)
	}
	return and
}

// values takes a Program's key apart.
func (s *shape) values(key string) (out []filter.Value) {
	b := []byte(key)
	for _, part := range s.Parts {
		var v filter.Value
		switch {
		case part.Field.Type.Numeric():
			v.Num, b = binary.BigEndian.Uint64(b), b[8:]
		case part.Field.Type == filter.TypeIPv6:
			v.Bytes, b = b[:16], b[16:]
		default:
			v.Bytes, b = b[1:1+b[0]], b[1+b[0]:]
		}
		out = append(out, v)
	}
	return out
}

// mapKey is the key in the kernel's map.
func (s *shape) mapKey(key string) []byte {
	out := make([]byte, s.size)
	for i, v := range s.values(key) {
		at, f := out[s.off[i]:], s.Parts[i].Field
		switch {
		case f.Type.Numeric() && shapeBytes(f) == 4:
			binary.NativeEndian.PutUint32(at, uint32(v.Num))
		case f.Type.Numeric():
			binary.NativeEndian.PutUint64(at, v.Num)
		case f.Type == filter.TypeIPv6:
			copy(at, v.Bytes)
		default:
			at[0] = byte(len(v.Bytes))
			copy(at[1:], v.Bytes)
		}
	}
	return out
}

// rest gives the number of an expression, from 1 on; 0 for none.
func (g *gen) rest(e filter.Expr, rule int) int {
	if e == nil {
		return 0
	}
	k := e.String()
	if g.restID[k] == 0 {
		g.rests = append(g.rests, restExpr{e, fmt.Sprintf("rule %q", g.prog.Policy.Rules[rule].Name)})
		g.restID[k] = len(g.rests)
	}
	return g.restID[k]
}

type restExpr struct {
	e     filter.Expr
	where string
}
