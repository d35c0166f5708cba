package filter

import (
	"fmt"
	"strconv"
	"strings"
)

// maxTuple bounds the fields of a tuple. Every combination of occurrences is
// looked up.
const maxTuple = 4

// ref is a field with perhaps a slice.
func (p *parser) ref() (Ref, error) {
	t := p.tok()
	switch {
	case t.kind == tokSet:
		return Ref{}, errorAt(t.off, t.len, "a set stands on the right of in, and a field's raw bytes have no name here",
			"write field in @"+t.val+", or a slice such as frame[12:2]")
	case t.kind == tokString:
		return Ref{}, errorAt(t.off, t.len, p.text(t)+" in quotes is no field", "the field goes on the left")
	case t.kind != tokWord:
		return Ref{}, p.unexpected()
	}
	f := Lookup(t.val)
	if f == nil {
		return Ref{}, p.unknown(t)
	}
	p.next()
	r := Ref{Field: f}
	if p.tok().kind != tokSlice {
		return r, nil
	}
	if !f.Type.sliceable() {
		return Ref{}, errorAt(p.tok().off, p.tok().len, fmt.Sprintf("%s (%s) has no slices", f.Name, f.Type),
			"use a mask: "+f.Name+" & 0xff, or a slice of the frame")
	}
	var err error
	if r.Slice, err = p.slice(); err != nil {
		return Ref{}, err
	}
	if t := p.tok(); t.kind == tokSlice {
		return Ref{}, errorAt(t.off, t.len, "a slice of a slice is not supported", "add up the offsets")
	}
	return r, nil
}

// sliceable reports whether values of the type are bytes in the order of the
// wire.
func (t Type) sliceable() bool {
	switch t {
	case TypeMAC, TypeIPv4, TypeIPv6, TypeBytes, TypeString, TypeProtocol:
		return true
	}
	return false
}

// unknown is the error for a word that stands in a field's place and is none.
func (p *parser) unknown(t token) error {
	hint := ""
	switch suggestions := Suggest(t.val); {
	case keywords[strings.ToLower(t.val)] != (token{}):
		return p.unexpected()
	case p.peek().kind == tokLParen:
		return refuse(t, function)
	case t.val[0] >= '0' && t.val[0] <= '9' || t.val[0] == '-':
		return errorAt(t.off, t.len, p.show(t)+" is no field", "the field goes on the left")
	case len(suggestions) > 0:
		hint = "did you mean " + strings.Join(suggestions, " or ") + "?"
	}
	return errorAt(t.off, t.len, "unknown field "+quote(t.val), hint)
}

// slice reads [off:len], [i-j], [:len], [off:], [:] or [i].
func (p *parser) slice() (*Slice, error) {
	t := p.next()
	bad := func(msg, hint string) (*Slice, error) { return nil, errorAt(t.off, t.len, msg, hint) }
	s := strings.TrimSpace(t.val)
	if strings.Contains(s, ",") {
		return bad("a list of slices is not supported", "compare each slice by itself and join them with &&")
	}
	from, length, colon := strings.Cut(s, ":")
	if colon {
		off, ok := bound(from, 0)
		n, ok2 := bound(length, -1)
		switch {
		case !ok || !ok2:
			return bad("the slice has a bad bound", "write [offset:length] with numbers of at most 65535")
		case strings.TrimSpace(length) != "" && n <= 0:
			return bad("the slice's length is not positive", "write [offset:length]")
		}
		return &Slice{off, n}, nil
	}
	from, to := s, s
	if i := strings.IndexByte(s[min(1, len(s)):], '-'); i >= 0 {
		from, to = s[:i+1], s[i+2:]
	}
	i, ok := bound(from, -1)
	j, ok2 := bound(to, -1)
	switch {
	case !ok || !ok2 || s == "":
		return bad("the slice has a bad bound", "write [offset:length], [first-last] or [index]")
	case i >= 0 != (j >= 0):
		return bad("the slice's length depends on the field's", "count both ends from the same side")
	case j < i:
		return bad("the slice ends before it begins", "write [first-last]")
	}
	return &Slice{i, j - i + 1}, nil
}

// bound is a number of a slice; absent is what stands for an empty one.
func bound(s string, absent int) (int, bool) {
	if s = strings.TrimSpace(s); s == "" {
		return absent, true
	}
	n, err := strconv.ParseInt(s, 0, 17)
	return int(n), err == nil
}

// mask reads what follows "&" and puts it into r.
func (p *parser) mask(r *Ref) error {
	amp := p.next()
	t := p.tok()
	if r.Mask != 0 {
		return errorAt(amp.off, amp.len, "a second mask is not supported", "write one mask")
	}
	if t.kind != tokWord {
		return p.expect(tokWord, "a mask")
	}
	if Lookup(t.val) != nil {
		return errorAt(t.off, t.len, "a field cannot be a mask", "write a constant")
	}
	typ := r.Type()
	switch {
	case r.Slice != nil && (r.Slice.Len < 1 || r.Slice.Len > 8):
		return errorAt(amp.off, amp.len, "only a slice of 1 to 8 bytes can be masked", "write ["+strconv.Itoa(r.Slice.Off)+":length]")
	case r.Slice == nil && (!typ.Numeric() || typ == TypeBool):
		hint := ""
		if typ.sliceable() {
			hint = "mask a slice of it, such as " + r.Field.Name + "[0:4]"
		}
		return errorAt(amp.off, amp.len, fmt.Sprintf("%s (%s) cannot be masked", r.Field.Name, typ), hint)
	}
	masked := *r
	masked.Mask = 1 // so that the mask of a slice is read as a number
	c, err := p.constant(masked)
	if err != nil {
		return err
	}
	if c.Prefix != Full {
		return errorAt(t.off, t.len, "a prefix cannot be a mask", "write == "+t.val)
	}
	if c.Num == 0 {
		return errorAt(t.off, t.len, "a mask of zero never matches", "")
	}
	r.Mask = c.Num
	return nil
}

// startsTuple tells (f, g) from a group.
func (p *parser) startsTuple() bool {
	i := p.pos + 1
	if p.toks[i].kind != tokWord {
		return false
	}
	if i++; p.toks[i].kind == tokSlice {
		i++
	}
	return p.toks[i].kind == tokComma
}

// tuple is (f, g) in @set.
func (p *parser) tuple() (Expr, error) {
	open := p.next()
	in := &In{}
	many := 0
	for {
		t := p.tok()
		r, err := p.ref()
		if err != nil {
			return nil, err
		}
		in.Fields = append(in.Fields, r)
		if r.Field.unbounded() {
			many++
		}
		if len(in.Fields) > maxTuple {
			return nil, errorAt(t.off, t.len, fmt.Sprintf("a tuple has at most %d fields", maxTuple), "")
		}
		if many > 1 {
			return nil, errorAt(t.off, t.len, "a second field of the tuple may occur any number of times, and so would the look-ups of one frame multiply", "look up one of them alone")
		}
		if !p.accept(tokComma) {
			break
		}
	}
	if err := p.expect(tokRParen, `"," or ")"`); err != nil {
		return nil, err
	}
	not := p.accept(tokNot)
	if err := p.expect(tokIn, "in @set"); err != nil {
		return nil, err
	}
	if t := p.tok(); t.kind != tokSet {
		return nil, errorAt(t.off, t.len, "a tuple can only be looked up in a named set", "write in @name")
	}
	return negate(not, in), p.namedSet(in, open.off)
}

func negate(not bool, x Expr) Expr {
	if not {
		return &Not{x}
	}
	return x
}
