package filter

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"sync"
)

// Eval is the reference evaluator: it walks the tree and looks at every
// occurrence. Engines are held against it. It does not allocate. A set that
// sets does not name is empty.
func Eval(e Expr, p *Packet, sets Sets) bool {
	switch e := e.(type) {
	case *And:
		for _, x := range e.X {
			if !Eval(x, p, sets) {
				return false
			}
		}
		return true
	case *Or:
		for _, x := range e.X {
			if Eval(x, p, sets) {
				return true
			}
		}
		return false
	case *Not:
		return !Eval(e.X, p, sets)
	case *Present:
		return e.Field.any(p, test{kind: always})
	case *Test:
		return e.Field.any(p, test{kind: notZero})
	case *Compare:
		return evalCompare(e, p)
	case *In:
		if e.Set != "" {
			return evalSet(e, p, sets[e.Set])
		}
		return e.Fields[0].any(p, test{kind: inElements, elements: e.Elements})
	}
	return false
}

// evalCompare is true if any occurrence compares true; for Ne, if there is one
// and none is equal.
func evalCompare(e *Compare, p *Packet) bool {
	if e.Field.single() && (e.Other == nil || e.Other.single() && e.Other.Field.Type == e.Field.Field.Type) {
		return evalSingle(e, p)
	}
	t := test{kind: toConst, op: e.Op, c: &e.Const}
	if e.Other != nil {
		t = test{kind: toField, op: e.Op, other: e.Other, typ: e.Field.Type()}
	}
	if !e.Field.any(p, t) {
		return false
	}
	if e.Op != Ne {
		return true
	}
	t.op = Eq
	return !e.Field.any(p, t)
}

// single reports whether r is a whole number that occurs at most once.
func (r *Ref) single() bool {
	return r.Field.Type.Numeric() && !r.Field.Many && r.Slice == nil && r.Mask == 0
}

// evalSingle is evalCompare of such numbers, the most usual comparison, without what others need.
func evalSingle(e *Compare, p *Packet) bool {
	v, ok := e.Field.Field.Value(p, 0)
	if !ok {
		return false
	}
	if e.Other == nil {
		return e.Const.compare(v, e.Op)
	}
	w, ok := e.Other.Field.Value(p, 0)
	return ok && e.Op.holds(cmp.Compare(v.Num, w.Num))
}

// test is what an occurrence is put to: a value and no function, through which
// the bytes of the occurrence would escape to the heap.
type test struct {
	kind     uint8
	op       Op
	c        *Const
	elements []Range
	other    *Ref
	typ      Type // of the occurrences that are compared with other's
}

// The kinds of test.
const (
	always = iota
	notZero
	toConst
	toField
	inElements
)

// any reports whether any occurrence of r stands the test.
func (r *Ref) any(p *Packet, t test) bool {
	var buf [8]byte
	for i := 0; ; i++ {
		v, state := r.value(p, i, &buf)
		if state == past {
			return false
		}
		if state == here && t.holds(p, v) {
			return true
		}
	}
}

func (t *test) holds(p *Packet, v Value) bool {
	switch t.kind {
	case always:
		return true
	case notZero:
		return v.Num != 0
	case toConst:
		return t.c.compare(v, t.op)
	case toField:
		return t.holdsField(p, v)
	}
	return inRanges(t.elements, v)
}

// holdsField compares v with every occurrence of the other field.
func (t *test) holdsField(p *Packet, v Value) bool {
	var bufV, bufW [8]byte
	typ := t.other.Type()
	bytewise := typ != t.typ
	if bytewise {
		v, typ = Value{Bytes: v.octets(t.typ, &bufV)}, TypeBytes
	}
	for i := 0; ; i++ {
		w, state := t.other.value(p, i, &bufW)
		if state == past {
			return false
		}
		if bytewise {
			w = Value{Bytes: w.octets(t.other.Type(), &bufW)}
		}
		if state == here && t.op.holds(order(typ, v, w)) {
			return true
		}
	}
}

// compare reports whether `v op c` holds.
func (c *Const) compare(v Value, op Op) bool {
	if c.Prefix == Full {
		return op.holds(order(c.Type, v, c.Value))
	}
	return c.covers(v) == (op == Eq)
}

// covers reports whether v lies in the prefix c.
func (c *Const) covers(v Value) bool {
	if c.Type == TypeIPv4 {
		return (v.Num^c.Num)>>(32-c.Prefix) == 0
	}
	n, rest := c.Prefix/8, c.Prefix%8
	return len(v.Bytes) == len(c.Bytes) && bytes.Equal(v.Bytes[:n], c.Bytes[:n]) &&
		(rest == 0 || (v.Bytes[n]^c.Bytes[n])>>(8-rest) == 0)
}

func (o Op) holds(order int) bool {
	switch o {
	case Eq:
		return order == 0
	case Ne:
		return order != 0
	case Lt:
		return order < 0
	case Le:
		return order <= 0
	case Gt:
		return order > 0
	}
	return order >= 0
}

// order compares two values of type t: -1, 0 or 1. Bytes compare as in
// Wireshark, the shorter first whatever it holds.
func order(t Type, a, b Value) int {
	switch {
	case t.Numeric() && a.Num != b.Num:
		if a.Num < b.Num {
			return -1
		}
		return 1
	case t.Numeric():
		return 0
	case t != TypeString && len(a.Bytes) != len(b.Bytes):
		if len(a.Bytes) < len(b.Bytes) {
			return -1
		}
		return 1
	}
	return bytes.Compare(a.Bytes, b.Bytes)
}

func inRanges(rs []Range, v Value) bool {
	for i := range rs {
		lo, hi := &rs[i].Lo, &rs[i].Hi
		if lo.Prefix != Full {
			if lo.covers(v) {
				return true
			}
		} else if order(lo.Type, v, lo.Value) >= 0 && order(lo.Type, v, hi.Value) <= 0 {
			return true
		}
	}
	return false
}

// What value found.
const (
	past    = iota // no such occurrence, nor any after it
	outside        // an occurrence too short for the slice
	here
)

// value is the i-th occurrence of what r refers to. Its bytes may lie in buf.
func (r *Ref) value(p *Packet, i int, buf *[8]byte) (Value, int) {
	v, ok := r.Field.Value(p, i)
	if !ok {
		return Value{}, past
	}
	if r.Slice != nil {
		b := r.Slice.of(v.octets(r.Field.Type, buf))
		if b == nil {
			return Value{}, outside
		}
		if v = (Value{Bytes: b}); r.Mask != 0 {
			v = Value{Num: bigEndian(b)}
		}
	}
	if r.Mask != 0 {
		v.Num &= r.Mask
	}
	return v, here
}

// of is the slice of b, nil where b is too short for it.
func (s *Slice) of(b []byte) []byte {
	off, n := s.Off, s.Len
	if off < 0 {
		off += len(b)
	}
	if n < 0 {
		n = len(b) - off
	}
	if off < 0 || n < 1 || off+n > len(b) {
		return nil
	}
	return b[off : off+n]
}

// octets gives the bytes on the wire of a value of type t, in buf if need be.
func (v Value) octets(t Type, buf *[8]byte) []byte {
	switch t {
	case TypeMAC:
		binary.BigEndian.PutUint64(buf[:], v.Num)
		return buf[2:]
	case TypeIPv4:
		binary.BigEndian.PutUint64(buf[:], v.Num)
		return buf[4:]
	}
	return v.Bytes
}

// bigEndian is the number that at most 8 bytes spell.
func bigEndian(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// lookup is the scratch space of a look-up in a set: behind the interface the
// key would escape to the heap each time.
type lookup struct {
	key [maxTuple]Value
	buf [maxTuple][8]byte
}

var lookups = sync.Pool{New: func() any { return new(lookup) }}

func evalSet(e *In, p *Packet, set Container) bool {
	if set == nil || len(e.Fields) > maxTuple {
		return false
	}
	l := lookups.Get().(*lookup)
	found := l.find(e.Fields, 0, p, set)
	*l = lookup{} // keep no frame alive
	lookups.Put(l)
	return found
}

// find tries every combination of occurrences of refs from the i-th on.
func (l *lookup) find(refs []Ref, i int, p *Packet, set Container) bool {
	if i == len(refs) {
		return set.Contains(l.key[:i])
	}
	for n := 0; ; n++ {
		v, state := refs[i].value(p, n, &l.buf[i])
		if state == past {
			return false
		}
		if state != here {
			continue
		}
		l.key[i] = v
		if l.find(refs, i+1, p, set) {
			return true
		}
	}
}
