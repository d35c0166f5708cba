package bpf

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/postern-fw/postern/firewall"
)

const rangeIDBytes = 16

// rangeID names a range by what it covers.
func rangeID(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:rangeIDBytes]
}

// rangesSpec is the map of a set's ranges.
func (s *setLayout) rangesSpec(entries uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Name: rangesMapName(s.index), Type: ebpf.Hash, KeySize: rangeIDBytes, ValueSize: uint32(s.rangeBytes()),
		MaxEntries: entries, Flags: noPrealloc}
}

// fill puts elements into a new set, in one batch.
func (s *liveSet) fill(elements []Member) error {
	// A fresh slot may be one that a set of before used.
	if err := s.setState([2]uint32{}); err != nil {
		return err
	}
	values := map[string]value{}
	masks := map[string]int{}
	var order []string
	for _, e := range elements {
		keys, err := s.expand(e.Element)
		if err != nil {
			return err
		}
		flags := uint32(0)
		if e.Declared {
			flags = keyDeclared
		}
		if len(keys) > 1 {
			row := s.appendRange(value{own: e.Deadline, flags: flags}.bytes(), e.Element)
			if err := s.ranges.Put(rangeID(s.id(keys)), row); err != nil {
				return fmt.Errorf("set %q, which has room for %d ranges: %w", s.decl.Name, s.ranges.MaxEntries(), err)
			}
		}
		for _, m := range keys {
			n, ok := masks[string(m.mask)]
			if !ok {
				k, _, err := s.key(m, true)
				if err != nil {
					return err
				}
				n = int(binary.NativeEndian.Uint64(k))
				masks[string(m.mask)] = n
			}
			k := string(mapKey(n, m.val))
			v, there := values[k]
			if !there {
				order = append(order, k)
				v.deadline = e.Deadline
			}
			v.deadline = later(v.deadline, e.Deadline)
			if len(keys) > 1 {
				v.flags |= keyCovered
			} else {
				v.own, v.flags = e.Deadline, v.flags|keyOwn|flags
			}
			values[k] = v
		}
	}
	t := contents{keySize: 8 + s.size, valSize: valueBytes}
	for _, k := range order {
		t.keys, t.vals = append(t.keys, k...), append(t.vals, values[k].bytes()...)
	}
	if err := t.put(s.elements); err != nil {
		return fmt.Errorf("set %q, which has room for %d look-up keys (its `size`): %w", s.decl.Name, s.elements.MaxEntries(), err)
	}
	return nil
}

// each calls fn with every key and its value.
func (s *liveSet) each(fn func(key []byte, v value)) error {
	const batch = 4096
	size := 8 + s.size
	keys, vals := rows(make([]byte, batch*size), size), rows(make([]byte, batch*valueBytes), valueBytes)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := s.elements.BatchLookup(&cursor, keys, vals, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("set %q: reading its elements: %w", s.decl.Name, err)
		}
		kb, vb := flat(keys, n, size), flat(vals, n, valueBytes)
		for i := range n {
			fn(kb[i*size:(i+1)*size], toValue(vb[i*valueBytes:]))
		}
		if err != nil {
			return nil
		}
	}
}

// list is all elements.
func (s *liveSet) list() (out []Member, err error) {
	state, err := s.state()
	if err != nil {
		return nil, err
	}
	masks := make([][]byte, state[0])
	for i := range masks {
		masks[i] = make([]byte, s.masks.ValueSize())
		if err := s.masks.Lookup(uint32(s.index*maxMasks+i), masks[i]); err != nil {
			return nil, fmt.Errorf("set %q: reading a mask: %w", s.decl.Name, err)
		}
	}
	add := func(e firewall.Element, flags uint32) {
		e.Text = spell(e)
		out = append(out, Member{e, flags&keyDeclared != 0})
	}
	err = s.each(func(key []byte, v value) {
		if n := binary.NativeEndian.Uint64(key); v.flags&keyOwn != 0 && n < uint64(len(masks)) {
			add(s.keyElement(masks[n], key[8:], v), v.flags)
		}
	})
	if err != nil {
		return nil, err
	}
	return out, s.eachRange(func(_, row []byte) error {
		add(s.rangeElement(row), toValue(row).flags)
		return nil
	})
}

// spell writes an element as a policy file does.
func spell(e firewall.Element) (s string) {
	for i, r := range e.Parts {
		if i > 0 {
			s += ", "
		}
		s += r.String()
	}
	return s
}

// sweep takes out what has ended before now.
func (s *liveSet) sweep(now int64) (n int, err error) {
	all, err := s.list()
	if err != nil {
		return 0, err
	}
	for _, e := range all {
		if e.Deadline == 0 || e.Deadline > now {
			continue
		}
		gone, err := s.remove(e.Element)
		if err != nil {
			return n, err
		}
		if gone {
			n++
		}
	}
	return n, nil
}
