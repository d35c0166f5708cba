package filter

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// ParseConst reads one constant of type t, as it would stand in an expression,
// but with strings bare. bits is the width of a number, 0 for 64. It serves the
// elements of sets and the values of `set`. The error is an *Error.
func ParseConst(text string, t Type, bits int) (Const, error) {
	r := Ref{Field: &Field{Name: "the value", Type: t, Bits: bits}}
	if t == TypeString {
		return Const{Type: t, Value: Value{Bytes: []byte(text)}, Prefix: Full, Text: strconv.Quote(text)}, nil
	}
	c, msg, hint := constant(r, text)
	if msg != "" {
		return Const{}, errorAt(0, len(text), msg, hint)
	}
	return c, nil
}

// ParseRange reads one element of a set of type t: a constant, a prefix, or
// first..last. The error is an *Error.
func ParseRange(text string, t Type, bits int) (Range, error) {
	first, last, dots := strings.Cut(text, "..")
	if !dots || t == TypeString {
		c, err := ParseConst(text, t, bits)
		return Range{c, c}, err
	}
	lo, err := ParseConst(strings.TrimSpace(first), t, bits)
	if err != nil {
		return Range{}, err
	}
	hi, err := ParseConst(strings.TrimSpace(last), t, bits)
	if err != nil {
		e := err.(*Error)
		e.Offset = len(text) - len(strings.TrimLeft(last, " "))
		return Range{}, e
	}
	return checkRange(Range{lo, hi}, 0, len(text))
}

// constant takes a constant to be compared with r.
func (p *parser) constant(r Ref) (Const, error) {
	t := p.tok()
	if t.kind != tokWord && t.kind != tokString {
		return Const{}, p.expect(tokWord, fmt.Sprintf("a constant (%s)", r.Type()))
	}
	p.next()
	if t.kind == tokString {
		return p.quoted(r, t)
	}
	c, msg, hint := constant(r, t.val)
	if msg == "" {
		return c, nil
	}
	if strings.Contains(t.val, ".") && hint == "" {
		if s := Suggest(t.val); len(s) > 0 {
			hint = "did you mean " + strings.Join(s, " or ") + "?"
		}
	}
	return Const{}, errorAt(t.off, t.len, msg, hint)
}

// quoted is a quoted string: text for a TypeString, its bytes for bytes.
func (p *parser) quoted(r Ref, t token) (Const, error) {
	typ := r.Type()
	switch typ {
	case TypeString, TypeBytes, TypeProtocol:
		if msg := wrongLength(r, len(t.val)); msg != "" {
			return Const{}, errorAt(t.off, t.len, msg, "")
		}
		return Const{Type: typ, Value: Value{Bytes: []byte(t.val)}, Prefix: Full, Text: p.text(t)}, nil
	}
	return Const{}, errorAt(t.off, t.len, fmt.Sprintf("%s is of type %s, not a string", r, typ), unquoted)
}

const unquoted = "write the value without quotes; names of values are not supported"

// constant reads text as a constant to be compared with r. msg says what is
// wrong with it.
func constant(r Ref, text string) (c Const, msg, hint string) {
	c = Const{Type: r.Type(), Prefix: Full, Text: text}
	switch c.Type {
	case TypeUint:
		c.Num, msg, hint = number(r, text)
	case TypeBool:
		c.Num, msg, hint = boolean(r, text)
	case TypeMAC:
		c.Num, msg, hint = mac(text)
	case TypeIPv4, TypeIPv6:
		c.Value, c.Prefix, msg, hint = address(c.Type, text)
	case TypeBytes, TypeProtocol:
		var ok bool
		if c.Bytes, ok = octets(text); !ok && r.Slice != nil && r.Slice.Len == 1 {
			c.Bytes, ok = octets(strings.TrimPrefix(text, "0x"))
		}
		if !ok {
			return c, quote(text) + " is not a byte string", "write it as 02:00:00"
		}
		msg = wrongLength(r, len(c.Bytes))
	case TypeString:
		c.Bytes = []byte(text)
	default:
		msg = r.String() + " has no value"
	}
	return c, msg, hint
}

// wrongLength refuses to compare a slice of a known length with a constant of
// another: it would never be equal.
func wrongLength(r Ref, n int) string {
	if r.Slice == nil || r.Slice.Len < 0 || r.Slice.Len == n {
		return ""
	}
	return fmt.Sprintf("%s has %d bytes, the constant has %d", r, r.Slice.Len, n)
}

// number reads a decimal, 0x…, 0b… or octal 0… number; for a masked slice,
// which is a number too, bytes of the slice's length.
func number(r Ref, text string) (n uint64, msg, hint string) {
	if r.Slice != nil {
		b, ok := octets(text)
		if !ok && r.Slice.Len == 1 {
			b, ok = octets(strings.TrimPrefix(text, "0x"))
		}
		if !ok || len(b) != r.Slice.Len {
			return 0, fmt.Sprintf("%s is not a byte string of %d bytes", quote(text), r.Slice.Len), "write it as 02:00:00"
		}
		var buf [8]byte
		copy(buf[8-len(b):], b)
		return binary.BigEndian.Uint64(buf[:]), "", ""
	}
	limit := uint64(math.MaxUint64)
	if b := r.Field.Bits; b > 0 && b < 64 {
		limit = 1<<b - 1
	}
	unsigned := strings.TrimPrefix(text, "-")
	n, err := strconv.ParseUint(unsigned, 0, 64)
	switch {
	case strings.Contains(text, "_") || err != nil && !isRange(err):
		if text != "" && text[0] >= '0' && text[0] <= '9' || text != unsigned {
			return 0, quote(text) + " is not a number", ""
		}
		return 0, quote(text) + " is neither a number nor a field", namedValue(text)
	case err != nil, n > limit, text != unsigned:
		return 0, fmt.Sprintf("%s is out of range for %s, which is 0 to %d", text, r.Field.Name, limit), ""
	}
	return n, "", ""
}

func isRange(err error) bool { return strings.HasSuffix(err.Error(), strconv.ErrRange.Error()) }

// namedValue is the hint for what may be one of Wireshark's names of values.
func namedValue(text string) string {
	if strings.Contains(text, ".") {
		return ""
	}
	return "names of values are not supported: write the number"
}

func boolean(r Ref, text string) (n uint64, msg, hint string) {
	switch text {
	case "1", "true", "True", "TRUE":
		return 1, "", ""
	case "0", "false", "False", "FALSE":
		return 0, "", ""
	}
	return 0, fmt.Sprintf("%s is not a boolean", quote(text)), "write 1, 0, true or false"
}

// mac reads an EUI-48 address in any of Wireshark's spellings.
func mac(text string) (n uint64, msg, hint string) {
	b, ok := octets(text)
	if !ok || len(b) != 6 {
		return 0, quote(text) + " is not a MAC address", "write it as 02:00:00:00:00:01; for its first bytes use a slice"
	}
	var buf [8]byte
	copy(buf[2:], b)
	return binary.BigEndian.Uint64(buf[:]), "", ""
}

// address reads an IP address or prefix. The value of a prefix has its host
// bits cleared.
func address(t Type, text string) (v Value, prefix int, msg, hint string) {
	addr, bits, cidr := strings.Cut(text, "/")
	name, width, eg := "an IPv4 address", 32, "192.0.2.1 or 192.0.2.0/24"
	if t == TypeIPv6 {
		name, width, eg = "an IPv6 address", 128, "2001:db8::1 or 2001:db8::/32"
	}
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.BitLen() != width {
		return v, Full, quote(addr) + " is not " + name, "write it as " + eg
	}
	prefix = Full
	if cidr {
		n, err := strconv.ParseUint(bits, 10, 8)
		if err != nil || n > uint64(width) || len(bits) > 1 && bits[0] == '0' {
			return v, Full, fmt.Sprintf("the prefix length is not 0 to %d", width), "write it as " + eg
		}
		prefix = int(n)
		p, _ := a.Prefix(prefix)
		a = p.Addr()
	}
	if t == TypeIPv6 {
		return Value{Bytes: a.AsSlice()}, prefix, "", ""
	}
	return Value{Num: uint64(binary.BigEndian.Uint32(a.AsSlice()))}, prefix, "", ""
}

// octets reads bytes in any of Wireshark's spellings: 02:00:5e, 02-00-5e,
// 02.00.5e, 0200.5e00, 02005e; a lone digit is a byte; a colon may come first.
func octets(text string) ([]byte, bool) {
	s := strings.TrimPrefix(text, ":")
	if len(s) == 1 {
		s = "0" + s
	}
	step := 2
	if i := strings.IndexAny(s, ":-."); i >= 0 {
		sep := s[i : i+1]
		if sep == "." && i == 4 {
			step = 4
		} else if i != 2 {
			return nil, false
		}
		for _, part := range strings.Split(s, sep) {
			if len(part) != step {
				return nil, false
			}
		}
		s = strings.ReplaceAll(s, sep, "")
	}
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) > 0
}
