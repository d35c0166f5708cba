package firewall

import (
	"fmt"
	"sort"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

// maxAlternatives bounds the conjunctions made of one rule, and alternativesOfAll
// those of a policy, roughly: what would exceed them stays an expression to evaluate.
const maxAlternatives, alternativesOfAll = 1024, 1 << 17

// alternativesEach is the bound for one rule of a policy.
func alternativesEach(p *Policy) int {
	return max(4, min(maxAlternatives, alternativesOfAll/max(1, len(p.Rules))))
}

// maxRangePrefixes is how many prefixes a range may need to become key parts.
const maxRangePrefixes = 4

// conjunction is keys to look up and expressions to evaluate, all to be true.
type conjunction struct {
	keys []keyed
	rest []filter.Expr
}

type keyed struct {
	part KeyPart
	val  filter.Value
}

// alternatives gives at most that many conjunctions, of which any must be true
// for e to be.
func alternatives(e filter.Expr, most int) []conjunction {
	switch e := e.(type) {
	case nil:
		return []conjunction{{}}
	case *filter.Or:
		var out []conjunction
		for _, x := range e.X {
			out = append(out, alternatives(x, most)...)
		}
		if len(out) <= most {
			return out
		}
	case *filter.And:
		out := []conjunction{{}}
		for _, x := range e.X {
			out = product(out, x, most)
		}
		return out
	case *filter.Compare:
		if e.Op == filter.Eq && e.Other == nil {
			return keysOf(e, e.Field, []filter.Range{{Lo: e.Const, Hi: e.Const}}, most)
		}
	case *filter.In:
		if e.Set == "" {
			return keysOf(e, e.Fields[0], e.Elements, most)
		}
	}
	return []conjunction{{rest: []filter.Expr{e}}}
}

// product joins each conjunction with each alternative of e.
func product(out []conjunction, e filter.Expr, most int) []conjunction {
	alts := alternatives(e, most)
	if len(out)*len(alts) > most {
		alts = []conjunction{{rest: []filter.Expr{e}}}
	}
	var next []conjunction
	for _, a := range out {
		for _, b := range alts {
			next = append(next, conjunction{
				keys: append(a.keys[:len(a.keys):len(a.keys)], b.keys...),
				rest: append(a.rest[:len(a.rest):len(a.rest)], b.rest...),
			})
		}
	}
	return next
}

// keysOf turns an equality into key parts, or leaves e as it is.
func keysOf(e filter.Expr, ref filter.Ref, ranges []filter.Range, most int) []conjunction {
	whole := []conjunction{{rest: []filter.Expr{e}}}
	if ref.Slice != nil || ref.Mask != 0 || ref.Field.Type == filter.TypeProtocol || len(ranges) > most {
		return whole
	}
	var out []conjunction
	for _, r := range ranges {
		ps, ok := prefixes(r)
		if !ok || len(ps) > maxRangePrefixes || r.Lo.Type != ref.Field.Type {
			return whole
		}
		for _, p := range ps {
			out = append(out, conjunction{keys: []keyed{{KeyPart{ref.Field, p.bits}, p.val}}})
		}
	}
	return out
}

// shape names the parts of the key, after putting them into one order. All but
// one field that may occur often are left to evaluation: the look-ups of one
// frame must not multiply. It is the one whose values tell the most rules apart.
func (c *conjunction) shape() string {
	sort.SliceStable(c.keys, func(i, j int) bool {
		a, b := c.keys[i].part, c.keys[j].part
		return a.Field.Name < b.Field.Name || a.Field == b.Field && a.Bits > b.Bits
	})
	many := -1
	for i, k := range c.keys {
		if k.part.Field.Many && (many < 0 || k.width() > c.keys[many].width()) {
			many = i
		}
	}
	kept, size := c.keys[:0:0], 0
	for i, k := range c.keys {
		n := keyLen(k)
		if k.part.Field.Many && i != many || size+n > keyBytes {
			c.rest = append(c.rest, k.expr())
			continue
		}
		size += n
		kept = append(kept, k)
	}
	c.keys = kept
	var b strings.Builder
	for _, k := range c.keys {
		fmt.Fprintf(&b, "%s/%d ", k.part.Field.Name, k.part.Bits)
	}
	return b.String()
}

// width is how many bits of a value the part compares.
func (k keyed) width() int {
	t := k.part.Field.Type
	switch {
	case t == filter.TypeUint && k.part.Field.Bits > 0:
		return k.part.Bits - 64 + k.part.Field.Bits
	case t == filter.TypeBool:
		return 1
	case t == filter.TypeMAC:
		return k.part.Bits - 64 + 48
	case t == filter.TypeIPv4:
		return k.part.Bits - 64 + 32
	case whole(t) > 0:
		return k.part.Bits
	}
	return 8 * maxKeyText
}

// keyLen is the room a part can need with any value a frame may hold.
func keyLen(k keyed) int {
	if w := whole(k.part.Field.Type); w > 0 {
		return w / 8
	}
	return 1 + maxKeyText
}

// expr is the key part as an expression again. It prints what it compares with, for
// expressions are told apart by how they print.
func (k keyed) expr() filter.Expr {
	lo := filter.Const{Type: k.part.Field.Type, Value: k.val, Prefix: filter.Full}
	hi := lo
	switch w := whole(lo.Type); {
	case w == 64:
		host := shiftedOnes(k.part.Bits)
		lo.Num, hi.Num = k.val.Num&^host, k.val.Num|host
		lo.Text, hi.Text = fmt.Sprintf("%#x", lo.Num), fmt.Sprintf("%#x", hi.Num)
	case w == 128 && k.part.Bits < w:
		lo.Prefix = k.part.Bits
		lo.Text = fmt.Sprintf("%x/%d", k.val.Bytes, k.part.Bits)
		hi = lo
	default:
		lo.Text = fmt.Sprintf("%q", k.val.Bytes)
		hi.Text = lo.Text
	}
	return &filter.In{Fields: []filter.Ref{{Field: k.part.Field}}, Elements: []filter.Range{{Lo: lo, Hi: hi}}}
}

func (c *conjunction) key() string {
	var b []byte
	for _, k := range c.keys {
		b, _ = appendKey(b, k.part.Field.Type, k.val, k.part.Bits)
	}
	return string(b)
}

// residual is what is left to evaluate, nil if nothing is.
func (c *conjunction) residual() filter.Expr {
	switch len(c.rest) {
	case 0:
		return nil
	case 1:
		return c.rest[0]
	}
	return &filter.And{X: c.rest}
}
