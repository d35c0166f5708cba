package bpf

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

// cond emits code that goes to yes if e is true, as filter.Eval has it, and to
// no if not.
func (g *gen) cond(c *code, e filter.Expr, yes, no label) {
	switch e := e.(type) {
	case nil:
		c.ja(yes)
	case *filter.And:
		for _, x := range e.X {
			next := c.label()
			g.cond(c, x, next, no)
			c.mark(next)
		}
		c.ja(yes)
	case *filter.Or:
		for _, x := range e.X {
			next := c.label()
			g.cond(c, x, yes, next)
			c.mark(next)
		}
		c.ja(no)
	case *filter.Not:
		g.cond(c, e.X, no, yes)
	case *filter.Present:
		g.any(c, e.Field, test{kind: always}, yes, no)
	case *filter.Test:
		g.any(c, e.Field, test{kind: notZero}, yes, no)
	case *filter.Compare:
		g.compare(c, e, yes, no)
	case *filter.In:
		if e.Set != "" {
			g.inSet(c, e, yes, no)
			return
		}
		g.any(c, e.Fields[0], test{kind: inElements, elements: e.Elements}, yes, no)
	default:
		g.refuse("the expression %s", e)
	}
}

// compare is filter's evalCompare: Ne is true if there is an occurrence and none
// is equal.
func (g *gen) compare(c *code, e *filter.Compare, yes, no label) {
	t := test{kind: toConst, op: e.Op, c: &e.Const}
	if e.Other != nil {
		t = test{kind: toField, op: e.Op, other: e.Other}
	}
	if e.Op != filter.Ne {
		g.any(c, e.Field, t, yes, no)
		return
	}
	some := c.label()
	g.any(c, e.Field, t, some, no)
	c.mark(some)
	if !e.Field.Field.Many && (e.Other == nil || !e.Other.Field.Many) {
		c.ja(yes)
		return
	}
	t.op = filter.Eq
	g.any(c, e.Field, t, no, yes)
}

// mirrored are the operators with their sides exchanged.
var mirrored = map[filter.Op]filter.Op{filter.Eq: filter.Eq, filter.Ne: filter.Ne, filter.Lt: filter.Gt, filter.Le: filter.Ge, filter.Gt: filter.Lt, filter.Ge: filter.Le}

// test is what an occurrence is put to.
type test struct {
	kind     testKind
	op       filter.Op
	c        *filter.Const
	elements []filter.Range
	other    *filter.Ref
	// in is a look-up; the bits of parts are the fields that the occurrence is, or that
	// are in the key already.
	in    *filter.In
	parts uint
	// slot is where captureFirst puts the occurrence.
	slot int
}

type testKind uint8

const (
	always testKind = iota
	notZero
	toConst
	toField
	inElements
	inSet
	captureFirst
)

// key names a test on a reference, so that it is emitted once.
func (t test) key(r filter.Ref) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d %s ", r, t.kind, t.op)
	if t.c != nil {
		fmt.Fprintf(&b, "%x/%d %x", t.c.Num, t.c.Prefix, t.c.Bytes)
	}
	for _, e := range t.elements {
		fmt.Fprintf(&b, "%x/%d %x..%x %x,", e.Lo.Num, e.Lo.Prefix, e.Lo.Bytes, e.Hi.Num, e.Hi.Bytes)
	}
	if t.other != nil {
		b.WriteString(t.other.String())
	}
	if t.in != nil {
		fmt.Fprintf(&b, "%s %d", t.in, t.parts)
	}
	return b.String()
}

// any goes to yes if any occurrence of r stands the test, to no if not.
func (g *gen) any(c *code, r filter.Ref, t test, yes, no label) {
	inOptions := optionFields[r.Field.Name] != nil
	if t.kind == toField && optionFields[t.other.Field.Name] != nil {
		if inOptions {
			g.jointCompare(c, r, t, yes)
		}
		if outside(r.Field) {
			g.atom(c, *t.other, test{kind: toField, op: mirrored[t.op], other: &r}, yes)
		}
	}
	if inOptions && (t.kind != toField || outside(t.other.Field)) {
		g.atom(c, r, t, yes)
	}
	g.occurrences(c, r.Field, func(v operand, next label) {
		if v, ok := g.refer(c, r, v, next); ok {
			g.stand(c, v, t, yes, next)
		}
	})
	c.ja(no)
}

// outside reports whether a field may occur elsewhere than in DHCP options.
func outside(f *filter.Field) bool { return optionFields[f.Name] == nil || computed[f.Name] != nil }

// stand goes to yes if the operand stands the test, to no if not.
func (g *gen) stand(c *code, v operand, t test, yes, no label) {
	switch t.kind {
	case always:
		c.ja(yes)
	case notZero:
		c.jif(asm.JNE, regValue, 0, yes)
		c.ja(no)
	case toConst:
		g.standConst(c, v, t.op, t.c, yes, no)
	case inElements:
		g.standElements(c, v, t.elements, yes, no)
	case toField:
		g.standField(c, v, t, yes, no)
	case inSet:
		g.standSet(c, v, t, yes, no)
	case captureFirst:
		if v.kind != inReg {
			g.hashText(c, v)
		}
		c.st(sCaptures+8*t.slot, regValue, asm.DWord)
		c.ja(yes)
	}
}

// jumps are the operators on unsigned numbers.
var jumps = map[filter.Op]asm.JumpOp{filter.Eq: asm.JEq, filter.Ne: asm.JNE, filter.Lt: asm.JLT, filter.Le: asm.JLE, filter.Gt: asm.JGT, filter.Ge: asm.JGE}

func (g *gen) standConst(c *code, v operand, op filter.Op, want *filter.Const, yes, no label) {
	switch {
	case want.Prefix != filter.Full:
		if op != filter.Eq {
			yes, no = no, yes
		}
		g.covers(c, v, want, yes, no)
	case v.kind == inReg:
		c.jif(jumps[op], regValue, want.Num, yes)
		c.ja(no)
	default:
		lt, eq, gt := byOrder(op, yes, no)
		g.order3(c, v, want.Bytes, want.Type == filter.TypeString, lt, eq, gt)
	}
}

// byOrder tells where an operator goes by the order of its operands.
func byOrder(op filter.Op, yes, no label) (lt, eq, gt label) {
	to := func(b bool) label {
		if b {
			return yes
		}
		return no
	}
	return to(op == filter.Ne || op == filter.Lt || op == filter.Le),
		to(op == filter.Eq || op == filter.Le || op == filter.Ge),
		to(op == filter.Ne || op == filter.Gt || op == filter.Ge)
}

// covers is filter.Const.covers; it leaves a number in regValue alone.
func (g *gen) covers(c *code, v operand, want *filter.Const, yes, no label) {
	if v.kind == inReg {
		c.mov(asm.R4, regValue)
		c.emit(asm.RSh.Imm(asm.R4, int32(32-want.Prefix)))
		c.jif(asm.JEq, asm.R4, want.Num>>(32-want.Prefix), yes)
		c.ja(no)
		return
	}
	if v.n != len(want.Bytes) {
		g.refuse("a prefix of %s", v.typ)
		return
	}
	v = g.toMem(c, v, sTmp)
	n, rest := want.Prefix/8, want.Prefix%8
	c.words(v.mem, want.Bytes[:n], no, no)
	if rest != 0 {
		c.ld(asm.R4, v.mem+n, asm.Byte)
		c.emit(asm.RSh.Imm(asm.R4, int32(8-rest)))
		c.jif(asm.JNE, asm.R4, uint64(want.Bytes[n]>>(8-rest)), no)
	}
	c.ja(yes)
}

func (g *gen) standElements(c *code, v operand, elements []filter.Range, yes, no label) {
	if v.kind == inFrame && v.n >= 0 {
		v = g.toMem(c, v, sTmp) // once for all
	}
	for i := range elements {
		lo, hi := &elements[i].Lo, &elements[i].Hi
		next := c.label()
		switch {
		case lo.Prefix != filter.Full:
			g.covers(c, v, lo, yes, next)
		case v.kind == inReg && lo.Num == hi.Num:
			c.jif(asm.JEq, regValue, lo.Num, yes)
		case v.kind == inReg:
			c.jif(asm.JLT, regValue, lo.Num, next)
			c.jif(asm.JLE, regValue, hi.Num, yes)
		default:
			text, above := lo.Type == filter.TypeString, c.label()
			if string(lo.Bytes) == string(hi.Bytes) {
				g.order3(c, v, lo.Bytes, text, next, yes, next)
				break
			}
			g.order3(c, v, lo.Bytes, text, next, yes, above)
			c.mark(above)
			g.order3(c, v, hi.Bytes, text, yes, yes, next)
		}
		c.mark(next)
	}
	c.ja(no)
}
