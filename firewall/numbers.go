package firewall

import (
	"encoding/binary"
	"math/bits"

	"github.com/postern-fw/postern/firewall/filter"
)

// numbers is a shape's Entries as a table by open addressing, for shapes of a few numbers that occur
// once in a frame, as most are: it takes a third of the time of a map of strings.
type numbers struct {
	keep  [maxNumbers]uint64 // the bits of each part that count
	parts int
	shift int
	keys  [][maxNumbers]uint64
	// cands are a key's candidates, nil in an empty place.
	cands [][]Candidate
}

const maxNumbers = 3

// newNumbers returns nil if the shape has too many parts, or parts of another kind.
func newNumbers(s *Shape) *numbers {
	n := &numbers{parts: len(s.Parts), shift: 64 - bits.Len(uint(2*len(s.Entries)))}
	if n.parts == 0 || n.parts > maxNumbers {
		return nil
	}
	for i, part := range s.Parts {
		if !part.Field.Type.Numeric() || part.Field.Many {
			return nil
		}
		n.keep[i] = ^shiftedOnes(part.Bits)
	}
	n.keys, n.cands = make([][maxNumbers]uint64, 1<<(64-n.shift)), make([][]Candidate, 1<<(64-n.shift))
	for text, cands := range s.Entries {
		var key [maxNumbers]uint64
		for i := range n.parts {
			key[i] = binary.BigEndian.Uint64([]byte(text[8*i:]))
		}
		at := n.place(&key)
		n.keys[at], n.cands[at] = key, cands
	}
	return n
}

// place is where the key is, or the empty place where it would be. At least half of all are
// empty.
func (n *numbers) place(key *[maxNumbers]uint64) int {
	h := uint64(0)
	for _, k := range key {
		h = (h ^ k) * 0x9e37_79b9_7f4a_7c15
	}
	at := int(h >> n.shift)
	for n.cands[at] != nil && n.keys[at] != *key {
		at = (at + 1) & (len(n.cands) - 1)
	}
	return at
}

// candidates are those of a frame.
func (n *numbers) candidates(parts []KeyPart, p *filter.Packet) []Candidate {
	var key [maxNumbers]uint64
	for i := range n.parts {
		v, ok := parts[i].Field.Value(p, 0)
		if !ok {
			return nil
		}
		key[i] = v.Num & n.keep[i]
	}
	return n.cands[n.place(&key)]
}
