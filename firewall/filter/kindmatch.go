package filter

import "cmp"

// For is what is left of e for frames of a kind: without what is false there, because it asks for a field that
// none has. always reports that nothing is left, since e is true of each; never that it is true of none.
func For(e Expr, k Kind) (left Expr, always, never bool) {
	switch e := e.(type) {
	case nil:
		return nil, true, false
	case *And:
		return forAll(e.X, k)
	case *Or:
		var negated []Expr
		for _, x := range e.X {
			negated = append(negated, &Not{x})
		}
		_, always, never = forAll(negated, k)
		if always || never {
			return nil, never, always
		}
		return e, false, false
	case *Not:
		left, always, never = For(e.X, k)
		if always || never {
			return nil, never, always
		}
		return &Not{left}, false, false
	case *Present:
		never = e.Field.Field.Never(k)
	case *Test:
		never = e.Field.Field.Never(k)
	case *Compare:
		never = e.Field.Field.Never(k) || e.Other != nil && e.Other.Field.Never(k)
	case *In:
		for i := range e.Fields {
			never = never || e.Fields[i].Field.Never(k)
		}
	}
	if never {
		return nil, false, true
	}
	return e, false, false
}

// forAll is For of expressions of which all must be true.
func forAll(xs []Expr, k Kind) (left Expr, always, never bool) {
	var rest []Expr
	for _, x := range xs {
		l, yes, no := For(x, k)
		if no {
			return nil, false, true
		}
		if !yes {
			rest = append(rest, l)
		}
	}
	switch len(rest) {
	case 0:
		return nil, true, false
	case 1:
		return rest[0], false, false
	}
	return &And{rest}, false, false
}

// KindMatcher is a Matcher for frames of one kind. The zero value matches everything.
type KindMatcher struct {
	// Twins says that the expression asks for the same bytes in two places, and nothing else, as what stops a forged
	// sender does. Match is true if TwinsEqual is then, which takes fewer steps.
	Twins        bool
	one, another Bits

	// The first comparison of numbers at known places, if any. Where it looks only at the first of several occurrences
	// and is false, sure has to tell.
	left, right Spot
	c           uint64
	op          Op
	compares    bool
	field       bool // with right, not with c
	drop        uint8
	sure        *Matcher
	rest        *Matcher // what else must be true; nil if nothing
}

// NewKindMatcher returns the matcher of e, which may be nil: true.
func NewKindMatcher(e Expr, k Kind) (m KindMatcher) {
	var rest []Expr
	all := []Expr{e}
	if and, ok := e.(*And); ok {
		all = and.X
	}
	for _, x := range all {
		if c, ok := x.(*Compare); !ok || m.compares || !m.compare(c, k) {
			rest = append(rest, x)
		}
	}
	switch {
	case e == nil || len(rest) == 0:
	case len(rest) == 1:
		m.rest = NewMatcher(rest[0])
	default:
		m.rest = NewMatcher(&And{rest})
	}
	sameBytes := m.one.mask == m.another.mask && m.left.shift == m.right.shift && !m.one.typ && !m.another.typ
	m.Twins = m.compares && m.field && m.op == Eq && m.rest == nil && sameBytes
	return m
}

// compare makes c the first comparison, if it can be.
func (m *KindMatcher) compare(e *Compare, k Kind) bool {
	c, ok := newComparison(e)
	if !ok {
		return false
	}
	left, once, ok := NewSpot(e.Field.Field, k)
	right, onceRight := Spot{}, true
	if ok && c.field {
		right, onceRight, ok = NewSpot(e.Other.Field, k)
	}
	if !ok || !(once && onceRight) && e.Op != Eq {
		return false
	}
	m.left, m.right, m.c, m.op, m.compares, m.field, m.drop = left, right, c.c, c.op, true, c.field, c.drop
	if !(once && onceRight) {
		m.sure = NewMatcher(e)
	}
	m.one, m.another = left.Bits(left.mask), right.Bits(right.mask)
	return true
}

// TwinsEqual reports whether the two are the same in p, a frame of the kind. Of several occurrences it looks at the first.
func (m *KindMatcher) TwinsEqual(p *Packet) bool { return m.one.Of(p) == m.another.Of(p) }

// Match reports whether the expression is true of p, a frame of the kind. It does not allocate.
func (m *KindMatcher) Match(p *Packet, sets Sets) bool {
	if m.compares {
		v, w := m.left.Of(p)>>(m.drop&63), m.c
		if m.field {
			w = m.right.Of(p)
		}
		if v != w && m.op == Eq || m.op != Eq && !m.op.holds(cmp.Compare(v, w)) {
			if m.sure == nil || !m.sure.Match(p, sets) {
				return false
			}
		}
	}
	return m.rest == nil || m.rest.Match(p, sets)
}
