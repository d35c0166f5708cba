package firewall

import (
	"encoding/binary"
	"math/bits"

	"github.com/postern-fw/postern/firewall/filter"
)

// numbers is a shape's Entries as a table by open addressing, for shapes of a few numbers that occur
// once in a frame, as most are: it takes a third of the time of a map of strings.
type numbers struct {
	parts []numberPart
	shift int
	keys  [][maxNumbers]uint64
	// cands are a key's candidates, nil in an empty place.
	cands [][]Candidate
}

// numberPart is a part of the key, and the bits of it that count.
type numberPart struct {
	filter.Number
	keep uint64
}

const maxNumbers = 3

// newNumbers returns nil if the shape has too many parts, or parts of another kind.
func newNumbers(s *Shape) *numbers {
	n := &numbers{shift: 64 - bits.Len(uint(2*len(s.Entries)))}
	if len(s.Parts) > maxNumbers {
		return nil
	}
	for _, part := range s.Parts {
		if !part.Field.Type.Numeric() {
			return nil
		}
		number := filter.NewNumber(part.Field)
		if !number.Once() {
			return nil
		}
		n.parts = append(n.parts, numberPart{number, ^shiftedOnes(part.Bits)})
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
	for _, k := range key[:len(n.parts)] {
		h = (h ^ k) * 0x9e37_79b9_7f4a_7c15
	}
	at := int(h >> n.shift)
	for n.cands[at] != nil && n.keys[at] != *key {
		at = (at + 1) & (len(n.cands) - 1)
	}
	return at
}

// candidates are those of a frame; false if it must be looked for them in Entries, because a
// part may occur several times.
func (n *numbers) candidates(p *filter.Packet) (_ []Candidate, ok bool) {
	var key [maxNumbers]uint64
	for i := range n.parts {
		v, is := n.parts[i].Value(p)
		switch is {
		case filter.Absent:
			return nil, true
		case filter.Several:
			return nil, false
		}
		key[i] = v & n.parts[i].keep
	}
	return n.cands[n.place(&key)], true
}
