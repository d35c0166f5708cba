package bpf

import (
	"fmt"
	"math/bits"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// maxMasks is how many combinations of prefix lengths the elements of a set may
// have at one time: each costs a frame a look-up.
const maxMasks = 64

// Room in a key, in bytes. Text takes a byte for its length and textRoom for
// itself; what is longer is in no set.
const (
	textRoom = 120
	textPart = 1 + textRoom + 7 // on to the next word
)

// partBytes is the room that a value takes in a set's key.
func partBytes(t filter.Type) int {
	switch {
	case t.Numeric():
		return 8
	case t == filter.TypeIPv6:
		return 16
	}
	return textPart
}

// setLayout is how a set is laid out: a hash map from a key to value…, the first of
// which is a deadline, in CLOCK_BOOTTIME nanoseconds or 0. The key is the number of a mask, 8 bytes, and the
// values, of which the mask says which bits count. The masks in use stand in an
// array that all sets share, maxMasks for each.
type setLayout struct {
	decl  *firewall.SetDecl
	index int
	off   []int // by part: where it begins in the key, behind the mask's number
	size  int   // of all parts
}

func layoutSet(d *firewall.SetDecl, index int) *setLayout {
	l := &setLayout{decl: d, index: index}
	for _, t := range d.Types {
		l.off = append(l.off, l.size)
		l.size += partBytes(t)
	}
	return l
}

func setMapName(slot int) string      { return fmt.Sprintf("set_%d", slot) }
func (s *setLayout) mapName() string  { return setMapName(s.index) }
func (s *setLayout) hasName() string  { return fmt.Sprintf("set_%d_has", s.index) }
func (s *setLayout) funcName() string { return fmt.Sprintf("set_mask_%d", s.index) }

const (
	mapMasks = "set_masks" // masks, maxMasks for each set
	mapSets  = "set_count" // uint32 each: how many of them are in use, and set…
)

// inSet is `(f, g) in @set`. A field may occur in DHCP options, or elsewhere, or both:
// each way to combine them is a test of its own.
func (g *gen) inSet(c *code, e *filter.In, yes, no label) {
	if g.sets[e.Set] == nil {
		c.ja(no)
		return
	}
	var must, may uint
	for i, r := range e.Fields {
		switch {
		case optionFields[r.Field.Name] == nil:
		case outside(r.Field):
			may |= 1 << i
		default:
			must |= 1 << i
		}
	}
	for some := may; ; some = (some - 1) & may {
		next := c.label()
		switch t := (test{kind: inSet, in: e, parts: must | some}); bits.OnesCount(t.parts) {
		case 0:
			g.otherParts(c, t, 0, yes, next)
		case 1:
			i := bits.TrailingZeros(t.parts)
			g.atom(c, e.Fields[i], t, yes)
		default:
			g.jointIn(c, t, yes)
		}
		c.mark(next)
		if some == 0 {
			break
		}
	}
	c.ja(no)
}

// standSet goes to yes if the operand, which is the one field of t.parts, and some
// occurrences of the other fields are in the set.
func (g *gen) standSet(c *code, v operand, t test, yes, no label) {
	g.setPart(c, v, t, bits.TrailingZeros(t.parts), no)
	g.otherParts(c, t, 0, yes, no)
}

// setPart writes the i-th part of a key.
func (g *gen) setPart(c *code, v operand, t test, i int, none label) {
	s := g.sets[t.in.Set]
	g.keyPart(c, v, s.decl.Types[i], sKey+s.off[i], none)
}

// otherParts looks up each combination of the fields from the i-th on that are not in
// the key already.
func (g *gen) otherParts(c *code, t test, i int, yes, no label) {
	switch {
	case i == len(t.in.Fields):
		g.lookupSet(c, g.sets[t.in.Set], yes, no)
		return
	case t.parts&(1<<i) != 0:
		g.otherParts(c, t, i+1, yes, no)
		return
	}
	r := t.in.Fields[i]
	g.occurrences(c, r.Field, func(v operand, next label) {
		if v, ok := g.refer(c, r, v, next); ok {
			g.setPart(c, v, t, i, next)
			g.otherParts(c, t, i+1, yes, next)
		}
	})
	c.ja(no)
}

// keyPart writes a value into a key at off; it goes to none if it fits into none.
func (g *gen) keyPart(c *code, v operand, t filter.Type, off int, none label) {
	if v.kind == inReg {
		c.st(off, regValue, asm.DWord)
		return
	}
	if t == filter.TypeIPv6 {
		if v.n != 16 {
			g.refuse("a key of %d bytes for %s", v.n, t)
			return
		}
		for i := 0; i < 16; i += 8 {
			c.ld(asm.R0, v.mem+i, asm.DWord)
			c.st(off+i, asm.R0, asm.DWord)
		}
		return
	}
	if v.n >= 0 || v.most == 0 {
		g.refuse("a key of %s", v.typ)
		return
	}
	c.ld(asm.R1, v.lenSlot, asm.Word)
	c.jif(asm.JGT, asm.R1, textRoom, none)
	c.st(off, asm.R1, asm.Byte)
	// Behind the text there are zeros.
	for i := 0; i < textPart-1; i++ {
		if i >= v.most {
			c.sti(off+1+i, 0, asm.Byte)
			continue
		}
		c.ld(asm.R0, v.mem+i, asm.Byte)
		c.st(off+1+i, asm.R0, asm.Byte)
	}
}

// lookupSet looks sKey up in the set.
func (g *gen) lookupSet(c *code, s *setLayout, yes, no label) {
	g.needs(s.hasName(), s.has)
	g.needs(s.funcName(), s.lookup)
	c.call(s.hasName())
	c.jif(asm.JNE, asm.R0, 0, yes)
	c.ja(no)
}

// has is the function that looks sKey up under every mask. It is not emitted in place: the
// kernel takes a time as long as the program for each loop and each look-up that it patches.
func (s *setLayout) has() *code {
	c := newCode(s.hasName())
	none := c.label()
	c.prologue()
	c.sti(sFound, 0, asm.Word)
	c.sti(sIndex, int64(s.index), asm.Word)
	c.mapPtr(asm.R1, mapSets)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, none)
	c.emit(asm.LoadMem(asm.R1, asm.R0, 0, asm.Word))
	c.min(asm.R1, maxMasks)
	c.loop(s.funcName())
	c.ld(asm.R0, sFound, asm.Word)
	c.ret()
	c.mark(none)
	c.retImm(0)
	return c
}

// lookup is the callback that looks sKey up under one mask.
func (s *setLayout) lookup() *code {
	c := newCode(s.funcName())
	next, found := c.label(), c.label()
	c.mov(asm.R7, asm.R1)
	c.callback()
	c.st(sLook, asm.R7, asm.DWord)
	c.emit(asm.Add.Imm(asm.R7, int32(s.index*maxMasks)))
	c.st(sIndex, asm.R7, asm.Word)
	c.mapPtr(asm.R1, mapMasks)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, next)
	for i := 0; i < s.size; i += 8 {
		c.ld(asm.R1, sKey+i, asm.DWord)
		c.emit(asm.LoadMem(asm.R2, asm.R0, int16(i), asm.DWord), asm.And.Reg(asm.R1, asm.R2))
		c.st(sLook+8+i, asm.R1, asm.DWord)
	}
	c.mapPtr(asm.R1, s.mapName())
	c.ptr(asm.R2, sLook)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, next)
	c.emit(asm.LoadMem(asm.R7, asm.R0, 0, asm.DWord))
	c.jif(asm.JEq, asm.R7, 0, found)
	c.helper(asm.FnKtimeGetBootNs)
	c.jreg(asm.JGE, asm.R0, asm.R7, next)
	c.mark(found)
	c.sti(sFound, 1, asm.Word)
	c.retImm(1)
	c.mark(next)
	c.retImm(0)
	return c
}

// setMaps are the maps that sets need.
func setMaps(sets []*setLayout, l *Layout) map[string]*ebpf.MapSpec {
	out := map[string]*ebpf.MapSpec{}
	for i, s := range sets {
		out[s.mapName()] = &ebpf.MapSpec{Name: s.mapName(), Type: ebpf.Hash, KeySize: uint32(8 + s.size), ValueSize: valueBytes,
			MaxEntries: l.Sets[i].Size, Flags: noPrealloc}
	}
	if len(sets) > 0 {
		out[mapMasks] = &ebpf.MapSpec{Name: mapMasks, Type: ebpf.Array, KeySize: 4, ValueSize: l.MaskSize, MaxEntries: l.SetSlots * maxMasks}
		out[mapSets] = &ebpf.MapSpec{Name: mapSets, Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: l.SetSlots}
	}
	return out
}

const noPrealloc = 1 // BPF_F_NO_PREALLOC
