package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// liveSet is a set in the kernel. Nothing of it is kept here: whoever opens the maps
// sees the same. Two that change it at once must be kept apart by their callers.
type liveSet struct {
	*setLayout
	elements, ranges, masks, counts *ebpf.Map
}

func (e *Engine) set(l *setLayout) *liveSet {
	return &liveSet{l, e.maps[l.mapName()], e.maps[rangesMapName(l.index)], e.maps[mapMasks], e.maps[mapSets]}
}

// SetUpdate is a set to change.
type SetUpdate struct{ s *liveSet }

// UpdateSet calls fn with the named set. Each change is in force when its call
// returns. The caller sees to it that no other process changes the set meanwhile.
func (e *Engine) UpdateSet(name string, fn func(*SetUpdate) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, slot := range e.layout.Sets {
		if slot.Name == name {
			return fn(&SetUpdate{e.set(layoutSet(slot.decl(), slot.Slot))})
		}
	}
	return fmt.Errorf("%w %q", ErrNoSet, name)
}

// SweepSet takes the elements of a set out whose deadline is before now.
func (e *Engine) SweepSet(name string, now int64) error {
	return e.UpdateSet(name, func(u *SetUpdate) error { _, err := u.s.sweep(now); return err })
}

// Decl is what elements of the set look like.
func (u *SetUpdate) Decl() *firewall.SetDecl { return u.s.decl }

// Add puts elements into the set, or gives those it has a new deadline.
func (u *SetUpdate) Add(elements ...firewall.Element) error {
	for _, e := range elements {
		if err := u.s.add(e, 0); err != nil {
			return err
		}
	}
	return nil
}

// Delete takes an element out and reports whether it was there.
func (u *SetUpdate) Delete(e firewall.Element) (bool, error) { return u.s.remove(e) }

// Member is an element of a set, and whether it stands in the policy file.
type Member struct {
	firewall.Element
	Declared bool
}

// List is every element, those whose deadline has passed included, in no order.
func (u *SetUpdate) List() ([]Member, error) { return u.s.list() }

// key is the map's key of one masked value; ok is false if its mask is not in use and add is false.
func (s *liveSet) key(m masked, add bool) (key []byte, ok bool, err error) {
	state, err := s.state()
	if err != nil {
		return nil, false, err
	}
	n := int(state[0])
	for i := range n {
		have := make([]byte, s.masks.ValueSize())
		if err := s.masks.Lookup(uint32(s.index*maxMasks+i), have); err != nil {
			return nil, false, fmt.Errorf("set %q: reading a mask: %w", s.decl.Name, err)
		}
		if string(have[:s.size]) == string(m.mask) {
			return mapKey(i, m.val), true, nil
		}
	}
	if !add {
		return nil, false, nil
	}
	if n == maxMasks {
		return nil, false, fmt.Errorf("set %q has elements of more than %d combinations of prefix lengths: %w", s.decl.Name, maxMasks, ErrTooLarge)
	}
	row := make([]byte, s.masks.ValueSize())
	copy(row, m.mask)
	if err := s.masks.Put(uint32(s.index*maxMasks+n), row); err != nil {
		return nil, false, fmt.Errorf("set %q: adding a mask: %w", s.decl.Name, err)
	}
	state[0]++
	return mapKey(n, m.val), true, s.setState(state)
}

func mapKey(mask int, val []byte) []byte {
	return append(binary.NativeEndian.AppendUint64(make([]byte, 0, 8+len(val)), uint64(mask)), val...)
}

// state is the number of masks, and set….
func (s *liveSet) state() (state [2]uint32, err error) {
	if err := s.counts.Lookup(uint32(s.index), &state); err != nil {
		return state, fmt.Errorf("set %q: reading its state: %w", s.decl.Name, err)
	}
	return state, nil
}

func (s *liveSet) setState(state [2]uint32) error {
	if err := s.counts.Put(uint32(s.index), state); err != nil {
		return fmt.Errorf("set %q: writing its state: %w", s.decl.Name, err)
	}
	return nil
}

func (s *liveSet) changed() error {
	state, err := s.state()
	if err != nil || state[1]&setChanged != 0 {
		return err
	}
	state[1] |= setChanged
	return s.setState(state)
}

// get reads a key's value.
func (s *liveSet) get(key []byte) (v value, ok bool, err error) {
	b := make([]byte, valueBytes)
	err = s.elements.Lookup(key, b)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return v, false, nil
	}
	if err != nil {
		return v, false, fmt.Errorf("set %q: %w", s.decl.Name, err)
	}
	return toValue(b), true, nil
}

// add puts an element into the set.
func (s *liveSet) add(e firewall.Element, flags uint32) error {
	keys, err := s.expand(e)
	if err != nil {
		return err
	}
	if len(keys) > 1 {
		return s.addRange(e, keys, flags)
	}
	key, _, err := s.key(keys[0], true)
	if err != nil {
		return err
	}
	old, there, err := s.get(key)
	if err != nil {
		return err
	}
	if old.flags&keyDeclared != 0 && flags&keyDeclared == 0 {
		if err := s.changed(); err != nil {
			return err
		}
	}
	v := value{deadline: e.Deadline, own: e.Deadline, flags: keyOwn | flags}
	if there && old.flags&keyCovered != 0 {
		v.flags |= keyCovered
		if v.deadline, err = s.latest(key, v); err != nil {
			return err
		}
	}
	return s.put(key, v)
}

// put writes a key. In a full map it makes room first of those whose time is over.
func (s *liveSet) put(key []byte, v value) error {
	err := s.elements.Put(key, v.bytes())
	if errors.Is(err, unix.E2BIG) {
		if n, e := s.sweep(bootTime()); e == nil && n > 0 {
			err = s.elements.Put(key, v.bytes())
		}
	}
	if err != nil {
		return fmt.Errorf("set %q, which has room for %d look-up keys (its `size`): %w", s.decl.Name, s.elements.MaxEntries(), err)
	}
	return nil
}

// addRange puts an element of several keys into the set.
func (s *liveSet) addRange(e firewall.Element, keys []masked, flags uint32) error {
	id := rangeID(s.id(keys))
	old := make([]byte, s.rangeBytes())
	if err := s.ranges.Lookup(id, old); err == nil && toValue(old).flags&keyDeclared != 0 && flags&keyDeclared == 0 {
		if err := s.changed(); err != nil {
			return err
		}
	}
	row := s.appendRange(value{own: e.Deadline, flags: flags}.bytes(), e)
	if err := s.ranges.Put(id, row); err != nil {
		return fmt.Errorf("set %q, which has room for %d ranges: %w", s.decl.Name, s.ranges.MaxEntries(), err)
	}
	return s.renew(keys, true)
}

// renew gives keys that a range covers, or did, what they should have now.
func (s *liveSet) renew(keys []masked, covered bool) error {
	for _, m := range keys {
		key, ok, err := s.key(m, covered)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		v, _, err := s.get(key)
		if err != nil {
			return err
		}
		v.flags |= keyCovered
		if v.deadline, err = s.latest(key, v); errors.Is(err, errUncovered) {
			v.flags &^= keyCovered
			v.deadline, err = v.own, nil
		}
		if err != nil {
			return err
		}
		if v.flags == 0 {
			err = s.elements.Delete(key)
			if errors.Is(err, ebpf.ErrKeyNotExist) {
				err = nil
			}
		} else {
			err = s.put(key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errUncovered = errors.New("no range covers the key")

// latest is the deadline of a key by its own element and the ranges that cover it;
// errUncovered if none does.
func (s *liveSet) latest(key []byte, v value) (int64, error) {
	deadline, covered := v.own, false
	found := v.flags&keyOwn != 0
	err := s.eachRange(func(_, row []byte) error {
		e := s.rangeElement(row)
		keys, err := s.expand(e)
		if err != nil {
			return err
		}
		for _, m := range keys {
			k, ok, err := s.key(m, false)
			if err != nil {
				return err
			}
			if ok && string(k) == string(key) {
				if covered = true; found {
					deadline = later(deadline, e.Deadline)
				} else {
					deadline, found = e.Deadline, true
				}
			}
		}
		return nil
	})
	if err == nil && !covered {
		err = errUncovered
	}
	return deadline, err
}

func (s *liveSet) eachRange(fn func(id, row []byte) error) error {
	id, row := make([]byte, rangeIDBytes), make([]byte, s.rangeBytes())
	it := s.ranges.Iterate()
	for it.Next(&id, &row) {
		if err := fn(slices.Clone(id), slices.Clone(row)); err != nil {
			return err
		}
	}
	return it.Err()
}

// remove takes an element out.
func (s *liveSet) remove(e firewall.Element) (bool, error) {
	keys, err := s.expand(e)
	if err != nil {
		return false, err
	}
	if len(keys) > 1 {
		return s.removeRange(keys)
	}
	key, ok, err := s.key(keys[0], false)
	if err != nil || !ok {
		return false, err
	}
	v, ok, err := s.get(key)
	if err != nil || !ok || v.flags&keyOwn == 0 {
		return false, err
	}
	if v.flags&keyDeclared != 0 {
		if err := s.changed(); err != nil {
			return false, err
		}
	}
	if v.flags&keyCovered == 0 {
		if err := s.elements.Delete(key); err != nil {
			return false, fmt.Errorf("set %q: taking out %s: %w", s.decl.Name, e.Text, err)
		}
		return true, nil
	}
	v.own, v.flags = 0, keyCovered
	if v.deadline, err = s.latest(key, v); err != nil {
		return false, err
	}
	return true, s.put(key, v)
}

func (s *liveSet) removeRange(keys []masked) (bool, error) {
	id, row := rangeID(s.id(keys)), make([]byte, s.rangeBytes())
	err := s.ranges.Lookup(id, row)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	if err == nil && toValue(row).flags&keyDeclared != 0 {
		err = s.changed()
	}
	if err == nil {
		err = s.ranges.Delete(id)
	}
	if err != nil {
		return false, fmt.Errorf("set %q: %w", s.decl.Name, err)
	}
	return true, s.renew(keys, false)
}

func bootTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return ts.Nano()
}
