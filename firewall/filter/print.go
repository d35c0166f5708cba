package filter

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
)

// How tightly the operators bind, the loosest first.
const (
	precOr = iota
	precAnd
	precNot
)

func (e *And) String() string     { return string(appendExpr(nil, e, precOr)) }
func (e *Or) String() string      { return string(appendExpr(nil, e, precOr)) }
func (e *Not) String() string     { return string(appendExpr(nil, e, precOr)) }
func (e *Present) String() string { return string(appendExpr(nil, e, precOr)) }
func (e *Test) String() string    { return string(appendExpr(nil, e, precOr)) }
func (e *Compare) String() string { return string(appendExpr(nil, e, precOr)) }
func (e *In) String() string      { return string(appendExpr(nil, e, precOr)) }

// appendExpr appends e, in parentheses if it binds less tightly than least. It
// appends to one buffer, so that deep trees are not copied at every level.
func appendExpr(b []byte, e Expr, least int) []byte {
	switch e := e.(type) {
	case *And:
		return appendChain(b, e.X, " && ", precAnd, least)
	case *Or:
		return appendChain(b, e.X, " || ", precOr, least)
	case *Not:
		return appendNot(b, e)
	case *Present:
		return e.Field.append(b)
	case *Test:
		return e.Field.append(b)
	case *Compare:
		b = append(e.Field.append(b), " "+e.Op.String()+" "...)
		if e.Other != nil {
			return e.Other.append(b)
		}
		return append(b, e.Const.Text...)
	case *In:
		return appendIn(b, e, " in ")
	}
	return b
}

func appendChain(b []byte, xs []Expr, op string, prec, least int) []byte {
	if prec < least {
		b = append(b, '(')
	}
	for i, x := range xs {
		if i > 0 {
			b = append(b, op...)
		}
		b = appendExpr(b, x, prec+1)
	}
	if prec < least {
		b = append(b, ')')
	}
	return b
}

// appendNot writes `a not in {…}`, and parentheses round a comparison that need
// none: `!a == b` is right, but reads as if it were not.
func appendNot(b []byte, e *Not) []byte {
	switch x := e.X.(type) {
	case *In:
		return appendIn(b, x, " not in ")
	case *Compare:
		return append(appendExpr(append(b, "!("...), x, precOr), ')')
	}
	return appendExpr(append(b, '!'), e.X, precNot)
}

func appendIn(b []byte, e *In, op string) []byte {
	if len(e.Fields) > 1 {
		b = append(b, '(')
	}
	for i := range e.Fields {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = e.Fields[i].append(b)
	}
	if len(e.Fields) > 1 {
		b = append(b, ')')
	}
	b = append(b, op...)
	if e.Set != "" {
		return append(append(b, '@'), e.Set...)
	}
	for i, r := range e.Elements {
		b = append(b, [...]string{"{", ", "}[min(i, 1)]...)
		b = append(b, r.String()...)
	}
	return append(b, '}')
}

// String gives the range as it is written in a set.
func (r Range) String() string {
	if r.Lo.Text == r.Hi.Text {
		return r.Lo.Text
	}
	return r.Lo.Text + ".." + r.Hi.Text
}

// String gives the reference as it is written in an expression.
func (r Ref) String() string { return string(r.append(nil)) }

func (r Ref) append(b []byte) []byte {
	b = append(b, r.Field.Name...)
	if s := r.Slice; s != nil {
		b = strconv.AppendInt(append(b, '['), int64(s.Off), 10)
		switch {
		case s.Len < 0:
			b = append(b, ':')
		case s.Len != 1:
			b = strconv.AppendInt(append(b, ':'), int64(s.Len), 10)
		}
		b = append(b, ']')
	}
	if r.Mask != 0 {
		b = append(append(b, " & "...), r.mask()...)
	}
	return b
}

// mask spells the mask as a constant of the field's type.
func (r Ref) mask() string {
	switch {
	case r.Slice != nil:
		return colons(r.Mask, r.Slice.Len)
	case r.Field.Type == TypeMAC:
		return colons(r.Mask, 6)
	case r.Field.Type == TypeIPv4:
		m := uint32(r.Mask)
		return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}).String()
	}
	return "0x" + strconv.FormatUint(r.Mask, 16)
}

// colons spells the low n bytes of v as 02:00:00.
func colons(v uint64, n int) string {
	var parts []string
	for i := n - 1; i >= 0; i-- {
		parts = append(parts, hex.EncodeToString([]byte{byte(v >> (8 * i))}))
	}
	return strings.Join(parts, ":")
}

// hint names the sets in scope.
func (t SetTypes) hint() string {
	if len(t) == 0 {
		return "declare it under `sets`"
	}
	var names []string
	for name := range t {
		names = append(names, "@"+name)
	}
	sort.Strings(names)
	if len(names) > 8 {
		return fmt.Sprintf("there are %s and %d more", strings.Join(names[:8], ", "), len(names)-8)
	}
	return "there are " + strings.Join(names, ", ")
}
