package filter

import "cmp"

// Matcher is an expression made ready to be evaluated often. It decides as Eval does, and asks it for
// all that is no comparison of numbers. The zero value matches everything.
type Matcher struct {
	comparisons []comparison
	rest        []Expr
}

// comparison is one of a number with another or with a constant.
type comparison struct {
	left, right Number
	op          Op
	field       bool  // the right side is a field
	drop        uint8 // low bits that do not count: a prefix's
	c           uint64
	whole       *Compare
}

// NewMatcher returns the matcher of e, which may be nil: true.
func NewMatcher(e Expr) *Matcher {
	m := &Matcher{}
	m.add(e)
	return m
}

func (m *Matcher) add(e Expr) {
	switch e := e.(type) {
	case nil:
		return
	case *And:
		for _, x := range e.X {
			m.add(x)
		}
		return
	case *Compare:
		if c, ok := newComparison(e); ok {
			m.comparisons = append(m.comparisons, c)
			return
		}
	}
	m.rest = append(m.rest, e)
}

func newComparison(e *Compare) (c comparison, ok bool) {
	whole := func(r *Ref) bool { return r.Field.Type.Numeric() && r.Slice == nil && r.Mask == 0 }
	if !whole(&e.Field) || e.Other != nil && (!whole(e.Other) || e.Other.Field.Type != e.Field.Field.Type) {
		return c, false
	}
	c = comparison{left: NewNumber(e.Field.Field), op: e.Op, whole: e}
	switch {
	case e.Other != nil:
		c.right, c.field = NewNumber(e.Other.Field), true
	case e.Const.Prefix != Full:
		c.c, c.drop = e.Const.Num>>(32-e.Const.Prefix), uint8(32-e.Const.Prefix)
	default:
		c.c = e.Const.Num
	}
	return c, true
}

// Match reports whether the expression is true of p. It does not allocate.
func (m *Matcher) Match(p *Packet, sets Sets) bool {
	for i := range m.comparisons {
		if !m.comparisons[i].holds(p) {
			return false
		}
	}
	for _, e := range m.rest {
		if !Eval(e, p, sets) {
			return false
		}
	}
	return true
}

// firstEqual reports whether it is enough to look at the first of several occurrences.
func (c *comparison) firstEqual(p *Packet) bool {
	if c.op != Eq || !c.field {
		return false
	}
	v, ok := c.left.field.Value(p, 0)
	w, okRight := c.right.field.Value(p, 0)
	return ok && okRight && v.Num == w.Num
}

func (c *comparison) holds(p *Packet) bool {
	v, is := c.left.Value(p)
	w, isRight := c.c, Single
	if c.field {
		w, isRight = c.right.Value(p)
	}
	switch {
	case is == Several || isRight == Several:
		return c.firstEqual(p) || evalCompare(c.whole, p)
	case is == Absent || isRight == Absent:
		return false
	}
	v >>= c.drop & 63
	if c.op == Eq {
		return v == w
	}
	return c.op.holds(cmp.Compare(v, w))
}
