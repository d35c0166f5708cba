package firewall

import (
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

// facts are what holds of every frame that a conjunction matches, as far as that
// is easily seen.
type facts struct {
	keys []keyed
	// span is the least and greatest value of a numeric field of one occurrence.
	span map[*filter.Field][2]uint64
	// present are the names of fields and protocols that the frame has.
	present map[string]bool
	// texts are the expressions that are true, as they are printed.
	texts map[string]bool
	// never is true if no frame can be like that.
	never bool
}

// factsOf reads a conjunction.
func factsOf(c *conjunction) *facts {
	f := &facts{keys: c.keys, span: map[*filter.Field][2]uint64{}, present: map[string]bool{}, texts: map[string]bool{}}
	for _, k := range c.keys {
		f.has(k.part.Field)
		if k.part.Field.Type.Numeric() {
			host := shiftedOnes(k.part.Bits)
			f.within(k.part.Field, k.val.Num&^host, k.val.Num|host)
		}
	}
	for _, e := range c.rest {
		f.texts[e.String()] = true
		f.learn(e)
	}
	for _, e := range c.rest {
		if n, ok := e.(*filter.Not); ok && f.implies(n.X) {
			f.never = true
		}
	}
	for _, pair := range [][2]string{{"arp", "ip"}, {"arp", "ipv6"}, {"arp", "udp"}, {"arp", "dhcp"}, {"ip", "ipv6"}} {
		f.never = f.never || f.present[pair[0]] && f.present[pair[1]]
	}
	return f
}

func (f *facts) learn(e filter.Expr) {
	switch e := e.(type) {
	case *filter.Present:
		f.has(e.Field.Field)
	case *filter.Test:
		f.has(e.Field.Field)
	case *filter.Compare:
		f.has(e.Field.Field)
		if e.Other != nil {
			f.has(e.Other.Field)
		} else if lo, hi, ok := spanOf(e); ok {
			f.within(e.Field.Field, lo, hi)
		}
	case *filter.In:
		for i := range e.Fields {
			f.has(e.Fields[i].Field)
		}
	}
}

// has notes that a field occurs, and with it the protocol it belongs to.
func (f *facts) has(field *filter.Field) {
	f.present[field.Name] = true
	proto, rest, found := strings.Cut(field.Name, ".")
	// IPv6 has an ip.version too.
	if found && !strings.HasSuffix(rest, "malformed") && field.Name != "ip.version" {
		f.present[proto] = true
	}
}

// within narrows a field's span.
func (f *facts) within(field *filter.Field, lo, hi uint64) {
	if field.Many {
		return
	}
	if s, ok := f.span[field]; ok {
		lo, hi = max(lo, s[0]), min(hi, s[1])
	}
	f.span[field] = [2]uint64{lo, hi}
	f.never = f.never || lo > hi
}

// spanOf is the values for which a comparison with a number is true, if they are
// one span.
func spanOf(e *filter.Compare) (lo, hi uint64, ok bool) {
	const most = ^uint64(0)
	n := e.Const.Num
	if e.Other != nil || e.Field.Slice != nil || e.Field.Mask != 0 || !e.Const.Type.Numeric() || e.Const.Prefix != filter.Full ||
		e.Const.Type != e.Field.Field.Type {
		return 0, 0, false
	}
	switch {
	case e.Op == filter.Eq:
		return n, n, true
	case e.Op == filter.Ge:
		return n, most, true
	case e.Op == filter.Le:
		return 0, n, true
	case e.Op == filter.Gt && n < most:
		return n + 1, most, true
	case e.Op == filter.Lt && n > 0:
		return 0, n - 1, true
	}
	return 0, 0, false
}

// implies reports whether e is surely true of the frames.
func (f *facts) implies(e filter.Expr) bool {
	if f.texts[e.String()] {
		return true
	}
	switch e := e.(type) {
	case *filter.Present:
		return e.Field.Slice == nil && f.present[e.Field.Field.Name]
	case *filter.Compare:
		return f.impliesCompare(e)
	case *filter.In:
		return e.Set == "" && f.impliesIn(e)
	case *filter.And:
		for _, x := range e.X {
			if !f.implies(x) {
				return false
			}
		}
		return true
	case *filter.Or:
		for _, x := range e.X {
			if f.implies(x) {
				return true
			}
		}
	}
	return false
}

func (f *facts) impliesCompare(e *filter.Compare) bool {
	s, known := f.span[e.Field.Field]
	if lo, hi, ok := spanOf(e); ok {
		return known && lo <= s[0] && s[1] <= hi
	}
	plain := e.Other == nil && e.Field.Slice == nil && e.Field.Mask == 0 && e.Const.Prefix == filter.Full
	return plain && known && e.Op == filter.Ne && (e.Const.Num < s[0] || e.Const.Num > s[1])
}

func (f *facts) impliesIn(e *filter.In) bool {
	r := &e.Fields[0]
	s, known := f.span[r.Field]
	if !known || r.Slice != nil || r.Mask != 0 {
		return false
	}
	for _, el := range e.Elements {
		if el.Lo.Prefix == filter.Full && el.Lo.Type == r.Field.Type && el.Lo.Num <= s[0] && s[1] <= el.Hi.Num {
			return true
		}
	}
	return false
}

// under is the key of a shape's parts that the frames surely have, "" and false
// if they need not.
func (f *facts) under(parts []KeyPart) (string, bool) {
	var b []byte
	for _, part := range parts {
		found := false
		for _, k := range f.keys {
			if k.part.Field == part.Field && k.part.Bits >= part.Bits {
				b, found = appendKey(b, part.Field.Type, k.val, part.Bits)
				break
			}
		}
		if !found {
			return "", false
		}
	}
	return string(b), true
}
