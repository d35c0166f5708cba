package firewall

import (
	"encoding/binary"

	"github.com/postern-fw/postern/firewall/filter"
)

// numbers is a shape's Entries as a table, for shapes of a few numbers that occur
// once in a frame, as most are: it takes a third of the time of a map of strings.
type numbers struct {
	parts []numberPart
	table table
	// cands are those of all keys, one key's side by side.
	cands []Candidate
}

// numberPart is a part of the key, and the bits of it that count.
type numberPart struct {
	filter.Number
	keep uint64
}

const maxNumbers = 3

// newNumbers returns nil if the shape has too many parts, or parts of another kind.
func newNumbers(s *Shape) *numbers {
	n := &numbers{table: newTable(len(s.Entries))}
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
	for text, cands := range s.Entries {
		var key [maxNumbers]uint64
		for i := range n.parts {
			key[i] = binary.BigEndian.Uint64([]byte(text[8*i:]))
		}
		from := len(n.cands)
		n.cands = append(n.cands, cands...)
		*n.table.place(&key) = entry{key, uint32(from), uint32(len(n.cands))}
	}
	return n
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
	at := n.table.place(&key)
	return n.cands[at.from:at.to], true
}
