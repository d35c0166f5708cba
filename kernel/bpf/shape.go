package bpf

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// The map of a shape leads from a key to its first candidate, and says where the
// others stand in the array of all: uint32 each of
//
//	rule, rest, first of the others, their number
//
// where rest is the number of an expression, 0 for none. The array has rule and rest.
const (
	entryBytes = 16
	candBytes  = 8

	mapCandidates = "candidates"
)

// match emits the function that looks a frame up in a shape's map.
func (g *gen) match(s *shape) *code {
	c := newCode(s.funcName())
	g.where = "policy " + g.prog.Policy.Name
	c.prologue()
	g.matchHere(c, s)
	c.retImm(0)
	return c
}

// matchHere looks a frame up in a shape's map, once for each occurrence of the field
// that may occur often.
func (g *gen) matchHere(c *code, s *shape) {
	out := c.label()
	c.ld(asm.R0, sBest, asm.Word)
	c.jif(asm.JLE, asm.R0, uint64(s.First), out)
	many := s.many()
	for i, part := range s.Parts {
		if i == many {
			continue
		}
		got := c.label()
		g.occurrences(c, part.Field, func(v operand, next label) {
			g.shapePart(c, s, i, v, next)
			c.ja(got)
		})
		c.ja(out)
		c.mark(got)
	}
	if many < 0 {
		g.probe(c, s)
		c.mark(out)
		return
	}
	f := s.Parts[many].Field
	if optionFields[f.Name] != nil {
		g.matchOptions(c, s, many)
	}
	g.occurrences(c, f, func(v operand, next label) {
		g.shapePart(c, s, many, v, next)
		g.needs(s.probeName(), func() *code {
			f := newCode(s.probeName())
			f.prologue()
			g.probe(f, s)
			f.retImm(0)
			return f
		})
		c.call(s.probeName())
		c.ja(next)
	})
	c.mark(out)
}

// many is the part of the shape's key whose field may occur often, -1 if there is none.
func (s *shape) many() int {
	return slices.IndexFunc(s.Parts, func(p firewall.KeyPart) bool { return p.Field.Many })
}

// shapePart writes the bits of a value that count into the key.
func (g *gen) shapePart(c *code, s *shape, i int, v operand, none label) {
	part, off := s.Parts[i], sShapeKey+s.off[i]
	switch {
	case v.kind == inReg:
		if part.Bits < 64 {
			c.and(regValue, ^(^uint64(0) >> part.Bits))
		}
		size := asm.DWord
		if shapeBytes(part.Field) == 4 {
			size = asm.Word
		}
		c.st(off, regValue, size)
	default:
		g.keyPart(c, v, part.Field.Type, off, none)
		if part.Field.Type == filter.TypeIPv6 && part.Bits < 128 {
			var mask [16]byte
			for i := range part.Bits {
				mask[i/8] |= 0x80 >> (i % 8)
			}
			for i := 0; i < 16; i += 8 {
				c.ld(asm.R0, off+i, asm.DWord)
				c.emit(asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(mask[i:])), asm.DWord), asm.And.Reg(asm.R0, asm.R1))
				c.st(off+i, asm.R0, asm.DWord)
			}
		}
	}
}

// matchOptions walks the options again, and looks up each occurrence of the field
// in them.
func (g *gen) matchOptions(c *code, s *shape, part int) {
	none, each := c.label(), fnEach+s.funcName()
	walk := &joint{where: g.where, levels: []level{{ref: filter.Ref{Field: s.Parts[part].Field}}}, stand: func(c *code, v operand, _, no label) {
		g.shapePart(c, s, part, v, no)
		g.probe(c, s) // here, since calls nest no deeper than eight
		c.ja(no)
	}}
	g.needs(each, func() *code { return g.eachJoint(each, walk) })
	c.testBits(sFlags, flagDHCP, none)
	c.testBits(sFlags, flagCookie, none)
	c.startWalk()
	c.sti(sWithin, 0, asm.Word)
	c.imm(asm.R1, maxJointSteps)
	c.loop(each)
	c.mark(none)
}

// probe looks sShapeKey up and goes through the candidates.
func (g *gen) probe(c *code, s *shape) {
	out, rest := c.label(), c.label()
	if s.table != nil {
		s.table.find(c, s.mapName(), sShapeKey, s.size, out)
	} else {
		c.mapPtr(asm.R1, s.mapName())
		c.ptr(asm.R2, sShapeKey)
		c.helper(asm.FnMapLookupElem)
		c.jif(asm.JEq, asm.R0, 0, out)
		c.mov(asm.R8, asm.R0)
	}
	others := false
	for _, cs := range s.Entries {
		others = others || len(cs) > 1
	}
	g.consider(c, s, asm.R8, out, rest)
	c.mark(rest)
	if others {
		name := fnEach + "candidate"
		g.needs(name, func() *code { return g.eachCandidate(name) })
		c.emit(asm.LoadMem(asm.R0, asm.R8, 8, asm.Word))
		c.st(sNext, asm.R0, asm.Word)
		c.emit(asm.LoadMem(asm.R1, asm.R8, 12, asm.Word))
		c.loop(name)
	}
	c.mark(out)
}

// consider makes the candidate at base of the shape, if that is known, the best if
// its rest is true, and goes to
// done if none behind it can be better, to next if one may.
func (g *gen) consider(c *code, s *shape, base asm.Register, done, next label) {
	take := c.label()
	c.emit(asm.LoadMem(asm.R7, base, 0, asm.Word))
	c.ld(asm.R0, sBest, asm.Word)
	c.jreg(asm.JLE, asm.R0, asm.R7, done)
	if g.again {
		c.ld(asm.R0, sFrom, asm.Word)
		c.jreg(asm.JGT, asm.R0, asm.R7, next)
	}
	if s != nil && s.sameRest != nil {
		g.whole(c, s.sameRest, take, next)
		c.mark(take)
		c.st(sBest, asm.R7, asm.Word)
		c.ja(done)
		return
	}
	c.emit(asm.LoadMem(asm.R3, base, 4, asm.Word))
	c.jif(asm.JEq, asm.R3, 0, take)
	for _, r := range g.restFuncs {
		further := c.label()
		c.jif(asm.JGT, asm.R3, uint64(r.last), further)
		c.call(r.name)
		c.jif(asm.JEq, asm.R0, 0, next)
		c.ja(take)
		c.mark(further)
	}
	c.ja(next)
	c.mark(take)
	c.st(sBest, asm.R7, asm.Word)
	c.ja(done)
}

// eachCandidate is the callback for the candidates behind the first.
func (g *gen) eachCandidate(name string) *code {
	c := newCode(name)
	next, done := c.label(), c.label()
	c.callback()
	c.mapPtr(asm.R1, mapCandidates)
	c.ptr(asm.R2, sNext)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, done)
	c.mov(asm.R8, asm.R0)
	c.ld(asm.R0, sNext, asm.Word)
	c.emit(asm.Add.Imm(asm.R0, 1))
	c.st(sNext, asm.R0, asm.Word)
	g.consider(c, nil, asm.R8, done, next)
	c.mark(done)
	c.retImm(1)
	c.mark(next)
	c.retImm(0)
	return c
}

// fnRest begins the names of functions that evaluate the expression whose number
// is R3.
const fnRest = "rest_"

type restFunc struct {
	name string
	last int // number of its last expression
}

// restFunctions emits the expressions that candidates still ask for.
func (g *gen) restFunctions() {
	for first := 0; first < len(g.rests); {
		c := newCode(fmt.Sprint(fnRest, first))
		c.prologue()
		tree := c.label()
		c.ja(tree)
		var blocks []label
		for i := first; i < len(g.rests) && len(c.ins) < functionSize; i++ {
			r := g.rests[i]
			g.where = r.where
			at, yes, no := c.label(), c.label(), c.label()
			c.mark(at)
			blocks = append(blocks, at)
			g.whole(c, r.e, yes, no)
			c.mark(yes)
			c.retImm(1)
			c.mark(no)
			c.retImm(0)
		}
		c.mark(tree)
		c.search(asm.R3, uint64(first+1), blocks)
		first += len(blocks)
		g.needs(c.name, func() *code { return c })
		g.restFuncs = append(g.restFuncs, restFunc{c.name, first})
	}
}

// search jumps to blocks[r-base], by halves.
func (c *code) search(r asm.Register, base uint64, blocks []label) {
	if len(blocks) == 1 {
		c.ja(blocks[0])
		return
	}
	half, right := len(blocks)/2, c.label()
	c.jif(asm.JGE, r, base+uint64(half), right)
	c.search(r, base, blocks[:half])
	c.mark(right)
	c.search(r, base+uint64(half), blocks[half:])
}

// contents is what a map holds when it is made: keys and values one behind the other.
type contents struct {
	keys, vals       []byte
	keySize, valSize int
}

// shapeContents numbers the rests and gives every shape's map, and the candidates'.
func (g *gen) shapeContents() {
	cands := contents{keySize: 4, valSize: candBytes}
	for _, s := range g.shapes {
		if !s.mapped {
			continue
		}
		s.findSameRest()
		var entryKeys, entries [][]byte
		for _, key := range slices.Sorted(maps.Keys(s.Entries)) {
			cs := s.Entries[key]
			first := len(cands.keys) / 4
			rest := 0
			if s.sameRest == nil {
				rest = g.rest(cs[0].Rest, cs[0].Rule)
			}
			var entry []byte
			for _, v := range []int{cs[0].Rule, rest, first, len(cs) - 1} {
				entry = binary.NativeEndian.AppendUint32(entry, uint32(v))
			}
			entryKeys, entries = append(entryKeys, s.mapKey(key)), append(entries, entry)
			for i, x := range cs[1:] {
				cands.keys = binary.NativeEndian.AppendUint32(cands.keys, uint32(first+i))
				cands.vals = binary.NativeEndian.AppendUint32(cands.vals, uint32(x.Rule))
				cands.vals = binary.NativeEndian.AppendUint32(cands.vals, uint32(g.rest(x.Rest, x.Rule)))
			}
		}
		g.shapeMap(s, entryKeys, entries)
	}
	g.contents[mapCandidates] = cands
	g.maps[mapCandidates] = &ebpf.MapSpec{Name: mapCandidates, Type: ebpf.Array, KeySize: 4, ValueSize: candBytes, MaxEntries: uint32(max(1, len(cands.keys)/4))}
}

// shapeMap makes the shape's map: a table, or a hash map where none can be made.
func (g *gen) shapeMap(s *shape, keys, entries [][]byte) {
	spec := &ebpf.MapSpec{Name: s.mapName(), Type: ebpf.Hash, KeySize: uint32(s.size), ValueSize: entryBytes, MaxEntries: uint32(len(keys))}
	t := contents{keySize: s.size, valSize: entryBytes, keys: slices.Concat(keys...), vals: slices.Concat(entries...)}
	if s.table = newTable(keys); s.table != nil {
		t = s.table.contents(keys, entries)
		spec.Type, spec.KeySize, spec.ValueSize, spec.MaxEntries = ebpf.Array, 4, uint32(t.valSize), uint32(len(s.table.slots))
	}
	g.contents[s.mapName()], g.maps[s.mapName()] = t, spec
}

// findSameRest finds the one expression that all candidates of the shape have left, so
// that it need not be looked for.
func (s *shape) findSameRest() {
	text := ""
	for _, c := range s.all {
		if c.Rest == nil || text != "" && c.Rest.String() != text {
			s.sameRest = nil
			return
		}
		s.sameRest, text = c.Rest, c.Rest.String()
	}
}
