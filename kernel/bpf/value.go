package bpf

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// What stands at a key of a set's map: an int64 deadline by which the kernel goes, 0 for
// never; the int64 deadline of the element that is this key and no other; and uint32 key….
// The kernel's is the latest of that one and of the ranges' that cover the key.
const (
	valueBytes = 24

	keyOwn      = 1 << iota // an element is just this key
	keyDeclared             // it stands in the policy file
	keyCovered              // a range covers the key
)

// setChanged is the flag in mapSets: a declared element was taken out or changed.
const setChanged = 1

type value struct {
	deadline, own int64
	flags         uint32
}

func (v value) bytes() []byte {
	b := binary.NativeEndian.AppendUint64(nil, uint64(v.deadline))
	b = binary.NativeEndian.AppendUint64(b, uint64(v.own))
	return binary.NativeEndian.AppendUint64(b, uint64(v.flags))
}

func toValue(b []byte) value {
	return value{int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:])), binary.NativeEndian.Uint32(b[16:])}
}

// later is the later of two deadlines; 0 is never.
func later(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// A range of several keys is kept in a map of its own, which the program does not read, by what
// it covers: a hash of it, and then a value and, for each part, its first and its last.

func rangesMapName(slot int) string { return fmt.Sprintf("ranges_%d", slot) }

// partSize is the room for one end of a part.
func rangePart(t filter.Type) int {
	switch {
	case t.Numeric():
		return 8
	case t == filter.TypeIPv6:
		return 24 // with the prefix length
	}
	return textPart
}

func (s *setLayout) rangeBytes() int {
	n := valueBytes
	for _, t := range s.decl.Types {
		n += 2 * rangePart(t)
	}
	return n
}

// appendRange writes the ends of an element's parts.
func (s *setLayout) appendRange(b []byte, e firewall.Element) []byte {
	for i, t := range s.decl.Types {
		for _, c := range []filter.Const{ends(e.Parts[i]).Lo, ends(e.Parts[i]).Hi} {
			end := make([]byte, rangePart(t))
			switch {
			case t.Numeric():
				binary.NativeEndian.PutUint64(end, c.Num)
			case t == filter.TypeIPv6:
				copy(end, c.Bytes)
				binary.NativeEndian.PutUint64(end[16:], uint64(c.Prefix))
			default:
				end[0] = byte(len(c.Bytes))
				copy(end[1:], c.Bytes)
			}
			b = append(b, end...)
		}
	}
	return b
}

// ends is a range whose ends are whole values, a prefix of IPv6 apart.
func ends(r filter.Range) filter.Range {
	if r.Lo.Type == filter.TypeIPv4 && r.Lo.Prefix != filter.Full {
		host := uint64(1)<<(32-r.Lo.Prefix) - 1
		r.Hi = r.Lo
		r.Hi.Num |= host
	}
	return r
}

// rangeElement is the inverse of appendRange.
func (s *setLayout) rangeElement(b []byte) firewall.Element {
	v := toValue(b)
	e := firewall.Element{Deadline: v.own}
	b = b[valueBytes:]
	for _, t := range s.decl.Types {
		n := rangePart(t)
		lo, hi := b[:n], b[n:2*n]
		b = b[2*n:]
		switch {
		case t.Numeric():
			e.Parts = append(e.Parts, numbers(t, binary.NativeEndian.Uint64(lo), binary.NativeEndian.Uint64(hi)))
		case t == filter.TypeIPv6:
			c := filter.NewConst(t, filter.Value{Bytes: lo[:16:16]}, int(int64(binary.NativeEndian.Uint64(lo[16:]))))
			e.Parts = append(e.Parts, filter.Range{Lo: c, Hi: c})
		default:
			c := filter.NewConst(t, filter.Value{Bytes: lo[1 : 1+lo[0]]}, filter.Full)
			e.Parts = append(e.Parts, filter.Range{Lo: c, Hi: c})
		}
	}
	return e
}

// numbers is a range of numbers, written as a prefix where it is one of IPv4.
func numbers(t filter.Type, lo, hi uint64) filter.Range {
	size := hi - lo
	if t == filter.TypeIPv4 && lo != hi && size&(size+1) == 0 && lo&size == 0 {
		c := filter.NewConst(t, filter.Value{Num: lo}, 32-bits.Len64(size))
		return filter.Range{Lo: c, Hi: c}
	}
	return filter.Range{Lo: filter.NewConst(t, filter.Value{Num: lo}, filter.Full), Hi: filter.NewConst(t, filter.Value{Num: hi}, filter.Full)}
}

// keyElement is the element that is just one key: a value of which the mask's bits count.
func (s *setLayout) keyElement(mask, val []byte, v value) firewall.Element {
	e := firewall.Element{Deadline: v.own}
	for i, t := range s.decl.Types {
		m, b := mask[s.off[i]:], val[s.off[i]:]
		switch {
		case t.Numeric():
			lo, of := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(m)
			e.Parts = append(e.Parts, numbers(t, lo, lo|^of))
		case t == filter.TypeIPv6:
			n := 0
			for _, x := range m[:16] {
				n += bits.OnesCount8(x)
			}
			if n == 128 {
				n = filter.Full
			}
			c := filter.NewConst(t, filter.Value{Bytes: append([]byte(nil), b[:16]...)}, n)
			e.Parts = append(e.Parts, filter.Range{Lo: c, Hi: c})
		default:
			c := filter.NewConst(t, filter.Value{Bytes: append([]byte(nil), b[1:1+b[0]]...)}, filter.Full)
			e.Parts = append(e.Parts, filter.Range{Lo: c, Hi: c})
		}
	}
	return e
}
