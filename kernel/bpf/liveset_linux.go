package bpf

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/postern-fw/postern/firewall"
)

// liveSet is the userspace side of a set: what its map's keys stand for. An
// element is known by how it was written.
type liveSet struct {
	layout   *setLayout
	engine   *Engine
	elements map[string]firewall.Element
	keys     map[string]map[string]int64 // map key -> element -> deadline
	masks    map[string]int              // mask -> its number
}

// SetUpdate is called with a set to change.
type SetUpdate struct{ s *liveSet }

// UpdateSet calls fn with the named set. Each change is in force when its call
// returns.
func (e *Engine) UpdateSet(name string, fn func(*SetUpdate) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sets[name]
	if s == nil {
		return fmt.Errorf("policy %q has no set %q", e.spec.Program.Policy.Name, name)
	}
	return fn(&SetUpdate{s})
}

// Add puts elements into the set, or gives those it has a new deadline.
func (u *SetUpdate) Add(elements ...firewall.Element) error { return u.s.add(elements) }

// Delete takes an element out and reports whether it was there.
func (u *SetUpdate) Delete(e firewall.Element) (bool, error) { return u.s.delete(e) }

// List is every element, those whose deadline has passed included.
func (u *SetUpdate) List() (out []firewall.Element) {
	for e := range maps.Values(u.s.elements) {
		out = append(out, e)
	}
	return out
}

// id names an element by what it covers.
func (s *setLayout) id(keys []masked) string {
	var b []byte
	for _, k := range keys {
		b = append(append(b, k.mask...), k.val...)
	}
	return string(b)
}

// mask gives the number of a mask, which is in use from then on.
func (s *liveSet) mask(mask []byte) (int, error) {
	if n, ok := s.masks[string(mask)]; ok {
		return n, nil
	}
	n := len(s.masks)
	if n == maxMasks {
		return 0, fmt.Errorf("set %q has elements of more than %d combinations of prefix lengths: %w", s.layout.decl.Name, maxMasks, ErrTooLarge)
	}
	m := s.engine.maps[mapMasks]
	val := make([]byte, m.ValueSize())
	copy(val, mask)
	if err := m.Put(uint32(s.layout.index*maxMasks+n), val); err != nil {
		return 0, fmt.Errorf("set %q: adding a mask: %w", s.layout.decl.Name, err)
	}
	if err := s.engine.maps[mapSets].Put(uint32(s.layout.index), uint32(n+1)); err != nil {
		return 0, fmt.Errorf("set %q: counting masks: %w", s.layout.decl.Name, err)
	}
	s.masks[string(mask)] = n
	return n, nil
}

// add writes new keys in one batch.
func (s *liveSet) add(elements []firewall.Element) error {
	if s.elements == nil {
		s.elements, s.keys, s.masks = map[string]firewall.Element{}, map[string]map[string]int64{}, map[string]int{}
	}
	size := 8 + s.layout.size
	var keys []byte
	var vals []int64
	for _, e := range elements {
		parts, err := s.layout.expand(e)
		if err != nil {
			return err
		}
		id := s.layout.id(parts)
		s.elements[id] = e
		for _, p := range parts {
			n, err := s.mask(p.mask)
			if err != nil {
				return err
			}
			k := append(binary.NativeEndian.AppendUint64(make([]byte, 0, size), uint64(n)), p.val...)
			if s.keys[string(k)] == nil {
				s.keys[string(k)] = map[string]int64{}
			}
			s.keys[string(k)][id] = e.Deadline
			keys, vals = append(keys, k...), append(vals, latest(s.keys[string(k)]))
		}
	}
	return s.write(keys, vals, size)
}

func (s *liveSet) write(keys []byte, vals []int64, size int) error {
	if len(vals) == 0 {
		return nil
	}
	m := s.engine.maps[s.layout.mapName()]
	var err error
	if len(vals) == 1 {
		err = m.Put(keys[:size], vals[0])
	} else {
		_, err = m.BatchUpdate(rows(keys, size), vals, nil)
	}
	if err != nil {
		return fmt.Errorf("set %q, which has room for %d look-up keys: %w", s.layout.decl.Name, m.MaxEntries(), err)
	}
	return nil
}

func (s *liveSet) delete(e firewall.Element) (bool, error) {
	parts, err := s.layout.expand(e)
	if err != nil {
		return false, err
	}
	id := s.layout.id(parts)
	if _, ok := s.elements[id]; !ok {
		return false, nil
	}
	delete(s.elements, id)
	m := s.engine.maps[s.layout.mapName()]
	for _, p := range parts {
		k := append(binary.NativeEndian.AppendUint64(nil, uint64(s.masks[string(p.mask)])), p.val...)
		users := s.keys[string(k)]
		if delete(users, id); len(users) > 0 {
			err = m.Put(k, latest(users))
		} else {
			delete(s.keys, string(k))
			err = m.Delete(k)
		}
		if err != nil {
			return true, fmt.Errorf("set %q: taking out %s: %w", s.layout.decl.Name, e.Text, err)
		}
	}
	return true, nil
}

// latest is the deadline of a key that several elements cover; 0 is never.
func latest(users map[string]int64) (d int64) {
	for _, u := range users {
		if u == 0 {
			return 0
		}
		d = max(d, u)
	}
	return d
}
