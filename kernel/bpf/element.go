package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// masked is values of which the bits of a mask count: one key of a set's map.
type masked struct{ mask, val []byte }

// maxExpand bounds the keys of one element, as in firewall.
const maxExpand = 4096

// expand gives the keys that cover an element of the set together.
func (s *setLayout) expand(e firewall.Element) ([]masked, error) {
	out := []masked{{make([]byte, 0, s.size), make([]byte, 0, s.size)}}
	for _, r := range e.Parts {
		parts, err := expandRange(r)
		if err == nil && len(parts)*len(out) > maxExpand {
			err = fmt.Errorf("more than %d prefixes: %w", maxExpand, ErrTooLarge)
		}
		if err != nil {
			return nil, fmt.Errorf("element %s of set %q: %w", e.Text, s.decl.Name, err)
		}
		var next []masked
		for _, head := range out {
			for _, p := range parts {
				next = append(next, masked{append(bytes.Clone(head.mask), p.mask...), append(bytes.Clone(head.val), p.val...)})
			}
		}
		out = next
	}
	return out, nil
}

func expandRange(r filter.Range) ([]masked, error) {
	t := r.Lo.Type
	switch {
	case t == filter.TypeIPv4 && r.Lo.Prefix != filter.Full:
		return []masked{ofNumber(r.Lo.Num, 32-r.Lo.Prefix)}, nil
	case t.Numeric():
		return split(r.Lo.Num, r.Hi.Num), nil
	case !bytes.Equal(r.Lo.Bytes, r.Hi.Bytes):
		return nil, fmt.Errorf("a range of %s: %w", t, ErrNotSupported)
	case t == filter.TypeIPv6:
		n := 128
		if r.Lo.Prefix != filter.Full {
			n = r.Lo.Prefix
		}
		mask := make([]byte, 16)
		for i := range n {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		return []masked{{mask, bytes.Clone(r.Lo.Bytes)}}, nil
	case len(r.Lo.Bytes) > textRoom:
		return nil, fmt.Errorf("text of %d bytes, more than %d: %w", len(r.Lo.Bytes), textRoom, ErrTooLarge)
	}
	val := make([]byte, textPart)
	val[0] = byte(len(r.Lo.Bytes))
	copy(val[1:], r.Lo.Bytes)
	return []masked{{bytes.Repeat([]byte{0xff}, textPart), val}}, nil
}

// ofNumber is a number, in the machine's byte order, whose last n bits do not count.
func ofNumber(v uint64, n int) masked {
	mask := ^uint64(0)
	if n > 0 {
		mask = mask >> n << n
	}
	return masked{binary.NativeEndian.AppendUint64(nil, mask), binary.NativeEndian.AppendUint64(nil, v&mask)}
}

// split covers lo to hi with the fewest aligned blocks.
func split(lo, hi uint64) (out []masked) {
	for {
		n := bits.TrailingZeros64(lo) // 64 for 0
		for n > 0 && hi-lo < 1<<n-1 {
			n--
		}
		if n == 64 && hi != ^uint64(0) {
			n = 63
			for n > 0 && hi-lo < 1<<n-1 {
				n--
			}
		}
		out = append(out, ofNumber(lo, n))
		if n == 64 || hi-lo == 1<<n-1 {
			return out
		}
		lo += 1 << n
	}
}

// declaredKeys is how many keys the declared elements of a set have.
func declaredKeys(d *firewall.SetDecl) (n int) {
	l := layoutSet(d, 0)
	for _, e := range d.Elements {
		keys, _ := l.expand(e)
		n += len(keys)
	}
	return n
}

// id names an element by what it covers.
func (s *setLayout) id(keys []masked) string {
	var b []byte
	for _, k := range keys {
		b = append(append(b, k.mask...), k.val...)
	}
	return string(b)
}
