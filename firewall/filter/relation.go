package filter

import (
	"fmt"
	"strings"

	"github.com/postern-fw/postern/proto/dhcp"
)

// relation is what may follow a field: a mask, a comparison, in; or nothing.
// start is where the field stands.
func (p *parser) relation(r Ref, start int) (Expr, error) {
	if p.tok().kind == tokMask {
		if err := p.mask(&r); err != nil {
			return nil, err
		}
	}
	switch t := p.tok(); {
	case t.kind == tokCmp:
		return p.compare(r, start)
	case t.kind == tokIn, t.kind == tokNot && p.peek().kind == tokIn:
		not := p.accept(tokNot)
		p.next()
		in := &In{Fields: []Ref{r}}
		if p.tok().kind == tokSet {
			return negate(not, in), p.namedSet(in, start)
		}
		return negate(not, in), p.elements(in)
	case t.kind == tokMask:
		return nil, p.mask(&r)
	case t.kind == tokRefused, t.kind == tokSlice:
		return nil, p.unexpected()
	case r.Mask != 0:
		return &Test{r}, nil
	}
	return &Present{r}, nil
}

// compare is op and a constant or a field.
func (p *parser) compare(r Ref, start int) (Expr, error) {
	op := p.next()
	c := &Compare{Field: r, Op: op.op}
	if r.Type() == TypeNone {
		return nil, errorAt(op.off, op.len, r.Field.Name+" has no value to compare", "write the field alone: it is true where it is present")
	}
	t := p.tok()
	switch {
	case t.kind == tokWord && Lookup(t.val) != nil:
		other, err := p.other()
		if err != nil {
			return nil, err
		}
		if !alike(r.Type(), other.Type()) {
			return nil, errorAt(start, t.off+t.len-start, fmt.Sprintf("%s (%s) and %s (%s) cannot be compared",
				r, r.Type(), other, other.Type()), "")
		}
		if r.Field.unbounded() && other.Field.unbounded() {
			return nil, errorAt(start, t.off+t.len-start, fmt.Sprintf("%s and %s may both occur any number of times", r, other),
				"compare each with a field that does not")
		}
		c.Other = &other
	case t.kind == tokSet:
		return nil, errorAt(op.off, op.len, "a set cannot be compared", "write in @"+t.val)
	case t.kind == tokLBrace:
		return nil, errorAt(op.off, op.len, "a list cannot be compared", "write in {…}")
	default:
		var err error
		if c.Const, err = p.constant(r); err != nil {
			return nil, err
		}
		if c.Const.Prefix != Full && c.Op > Ne {
			return nil, errorAt(op.off, op.len, "a prefix has no order", "write in {first..last}")
		}
	}
	switch t := p.tok(); t.kind {
	case tokCmp:
		return nil, errorAt(t.off, t.len, "a chain of comparisons is not supported", "write a < b && b < c")
	case tokMask:
		return nil, errorAt(t.off, t.len, "only a field can be masked", "mask the constant by hand")
	}
	return c, nil
}

// other is the right side of a comparison of two fields.
func (p *parser) other() (Ref, error) {
	r, err := p.ref()
	if err == nil && p.tok().kind == tokMask {
		err = p.mask(&r)
	}
	return r, err
}

// alike reports whether fields of two types can be compared. MAC
// addresses, bytes and protocols are all bytes, as in Wireshark.
func alike(a, b Type) bool {
	return a == b && a != TypeNone || a.octets() && b.octets()
}

// unbounded reports whether only the frame's length bounds how often the field
// occurs. Comparing two such fields would take longer than a frame is worth.
// The options that a sound message has once do not count.
func (f *Field) unbounded() bool {
	return f.Many && len(f.At) == 0 && !dhcp.Once(f.Option) && !strings.HasPrefix(f.Name, "dhcp.hw.")
}

func (t Type) octets() bool { return t == TypeMAC || t == TypeBytes || t == TypeProtocol }

// elements is {a, b, c..d}.
func (p *parser) elements(in *In) error {
	r := in.Fields[0]
	if r.Type() == TypeNone {
		t := p.tok()
		return errorAt(t.off, t.len, r.Field.Name+" has no value to look up", "write the field alone")
	}
	if t := p.tok(); t.kind == tokLParen {
		return errorAt(t.off, t.len, "the elements of a set stand in braces", "write {a, b, c..d}")
	}
	if err := p.expect(tokLBrace, "{…} or @set"); err != nil {
		return err
	}
	for {
		e, err := p.element(r)
		if err != nil {
			return err
		}
		in.Elements = append(in.Elements, e)
		if !p.accept(tokComma) {
			break
		}
	}
	return p.expect(tokRBrace, `"," or "}"`)
}

func (p *parser) element(r Ref) (Range, error) {
	first := p.tok()
	if first.kind == tokWord && Lookup(first.val) != nil {
		return Range{}, errorAt(first.off, first.len, "a field cannot be an element of a set", "write a comparison and ||")
	}
	lo, err := p.constant(r)
	if err != nil || !p.accept(tokDots) {
		return Range{lo, lo}, err
	}
	hi, err := p.constant(r)
	if err != nil {
		return Range{}, err
	}
	end := p.toks[p.pos-1]
	return checkRange(Range{lo, hi}, first.off, end.off+end.len-first.off)
}

func checkRange(r Range, off, n int) (Range, error) {
	switch {
	case r.Lo.Prefix != Full || r.Hi.Prefix != Full:
		return Range{}, errorAt(off, n, "a prefix cannot bound a range", "write the first and the last address")
	case order(r.Lo.Type, r.Lo.Value, r.Hi.Value) > 0:
		return Range{}, errorAt(off, n, "the range ends before it begins", "write the lower bound first")
	}
	return r, nil
}

// namedSet takes @name and checks it against the set's declaration.
func (p *parser) namedSet(in *In, start int) error {
	t := p.next()
	want, ok := p.types[t.val]
	if !ok {
		return errorAt(t.off, t.len, "unknown set "+quote(t.val), p.types.hint())
	}
	if len(want) != len(in.Fields) {
		return errorAt(start, t.off+t.len-start, fmt.Sprintf("@%s holds %s, not %s", t.val, shape(len(want)), shape(len(in.Fields))), "")
	}
	for i, r := range in.Fields {
		if r.Type() != want[i] {
			return errorAt(start, t.off+t.len-start, fmt.Sprintf("%s is of type %s, @%s holds the type %s there", r, r.Type(), t.val, want[i]), "")
		}
	}
	in.Set = t.val
	return nil
}

// shape is what a set with n types holds.
func shape(n int) string {
	if n == 1 {
		return "single values"
	}
	return fmt.Sprintf("tuples of %d", n)
}
