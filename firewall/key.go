package firewall

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/postern-fw/postern/firewall/filter"
)

// keyBytes bounds a key: it is built on the stack of Classify.
const keyBytes = 256

// maxKeyText bounds the variable-length parts of a key, in bytes.
const maxKeyText = 120

// prefix is a value of which the first bits count. For a number it has 64 bits,
// for IPv6 128; text has full = true and counts as a whole.
type prefix struct {
	val  filter.Value
	bits int
}

// whole is the number of bits of a type's key part.
func whole(t filter.Type) int {
	switch {
	case t.Numeric():
		return 64
	case t == filter.TypeIPv6:
		return 128
	}
	return 0
}

// appendKey appends a value's part of a key, only its first n bits set. It
// reports false for a text that is too long to be in any key.
func appendKey(dst []byte, t filter.Type, v filter.Value, n int) ([]byte, bool) {
	switch {
	case t.Numeric():
		num := v.Num
		if n < 64 {
			num &^= ^uint64(0) >> n
		}
		return binary.BigEndian.AppendUint64(dst, num), true
	case t == filter.TypeIPv6:
		if len(v.Bytes) != 16 {
			return dst, false
		}
		hi, lo := binary.BigEndian.Uint64(v.Bytes), binary.BigEndian.Uint64(v.Bytes[8:])
		if n <= 64 {
			lo = 0
			hi &^= shiftedOnes(n)
		} else {
			lo &^= shiftedOnes(n - 64)
		}
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(dst, hi), lo), true
	case len(v.Bytes) > maxKeyText:
		return dst, false
	}
	return append(append(dst, byte(len(v.Bytes))), v.Bytes...), true
}

// shiftedOnes has all bits set but the first n.
func shiftedOnes(n int) uint64 {
	if n >= 64 {
		return 0
	}
	return ^uint64(0) >> n
}

// prefixes splits a constant or an inclusive range into prefixes. It reports
// false for what has none: a range of texts, or a text beyond maxKeyText.
func prefixes(r filter.Range) ([]prefix, bool) {
	t := r.Lo.Type
	switch {
	case r.Lo.Prefix != filter.Full && t == filter.TypeIPv4:
		return []prefix{{r.Lo.Value, 32 + r.Lo.Prefix}}, true
	case r.Lo.Prefix != filter.Full:
		return []prefix{{r.Lo.Value, r.Lo.Prefix}}, t == filter.TypeIPv6
	case t.Numeric():
		return splitRange(r.Lo.Num, r.Hi.Num), r.Lo.Num <= r.Hi.Num
	case bytes.Equal(r.Lo.Bytes, r.Hi.Bytes) && len(r.Lo.Bytes) <= maxKeyText:
		return []prefix{{r.Lo.Value, whole(t)}}, true
	}
	return nil, false
}

// splitRange covers lo to hi with the fewest aligned blocks.
func splitRange(lo, hi uint64) (out []prefix) {
	for lo <= hi {
		size := bits.TrailingZeros64(lo) // 64 for 0
		for size > 0 && (size == 64 && (lo != 0 || hi != ^uint64(0)) || size < 64 && hi-lo < uint64(1)<<size-1) {
			size--
		}
		out = append(out, prefix{filter.Value{Num: lo}, 64 - size})
		if size == 64 || lo+uint64(1)<<size == 0 {
			break
		}
		lo += uint64(1) << size
	}
	return out
}

// maxExpand bounds the prefix tuples of one set element.
const maxExpand = 4096

// expand gives the tuples of prefixes that cover a tuple of ranges.
func expand(parts []filter.Range) ([][]prefix, bool) {
	out := [][]prefix{nil}
	for _, r := range parts {
		ps, ok := prefixes(r)
		if !ok || len(ps)*len(out) > maxExpand {
			return nil, false
		}
		var next [][]prefix
		for _, head := range out {
			for _, p := range ps {
				next = append(next, append(head[:len(head):len(head)], p))
			}
		}
		out = next
	}
	return out, true
}
