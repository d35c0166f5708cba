package firewall

import (
	"sync"

	"github.com/postern-fw/postern/firewall/filter"
)

// Set is a live named set. It is safe for use by many goroutines.
type Set struct {
	decl *SetDecl

	mu       sync.RWMutex
	elements map[string]*element
	masks    []*maskTable
	sweepAt  int // number of elements from which on Add looks for dead ones
}

type element struct {
	Element
	declared bool // stands in the policy file
	tuples   [][]prefix
}

// maskTable holds the elements that look at the same bits of each part.
type maskTable struct {
	bits []int
	keys map[string][]*element
}

func newSet(decl *SetDecl) *Set {
	s := &Set{decl: decl, elements: map[string]*element{}}
	for _, e := range decl.Elements {
		s.put(e, true)
	}
	return s
}

// Add puts elements into the set, or gives those it has a new deadline.
func (s *Set) Add(elements ...Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range elements {
		s.put(e, false)
	}
	if len(s.elements) >= s.sweepAt {
		s.sweep(bootTime())
		s.sweepAt = 2*len(s.elements) + 1024
	}
}

// sweep builds the set anew of what lives, so that a set of short-lived elements
// does not grow for ever.
func (s *Set) sweep(now int64) {
	old := s.elements
	s.elements, s.masks = make(map[string]*element, len(old)), nil
	for name, e := range old {
		if e.Deadline == 0 || now < e.Deadline {
			s.insert(name, e)
		}
	}
}

// Delete takes an element out and reports whether it was there.
func (s *Set) Delete(e Element) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remove(canonical(e, s.decl.Types))
}

// List is every element whose deadline has not passed.
func (s *Set) List() (out []Element) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := bootTime()
	for _, e := range s.elements {
		if e.Deadline == 0 || now < e.Deadline {
			out = append(out, e.Element)
		}
	}
	return out
}

// Contains implements filter.Container by the machine's clock, which it reads once
// and only if a deadline asks for it.
func (s *Set) Contains(key []filter.Value) bool {
	var now int64
	var buf [keyBytes * 2]byte
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.masks {
		b, ok := buf[:0], true
		for i, v := range key {
			if b, ok = appendKey(b, s.decl.Types[i], v, m.bits[i]); !ok {
				return false
			}
		}
		for _, e := range m.keys[string(b)] {
			if e.Deadline == 0 {
				return true
			}
			if now == 0 {
				now = bootTime()
			}
			if now < e.Deadline {
				return true
			}
		}
	}
	return false
}

func (s *Set) put(e Element, declared bool) {
	name := canonical(e, s.decl.Types)
	if old := s.elements[name]; old != nil {
		old.Element, old.declared = e, declared
		return
	}
	if tuples, ok := expand(e.Parts); ok { // Element refuses the others
		s.insert(name, &element{e, declared, tuples})
	}
}

func (s *Set) insert(name string, e *element) {
	s.elements[name] = e
	for _, t := range e.tuples {
		k := tupleKey(t, s.decl.Types)
		m := s.table(t)
		m.keys[k] = append(m.keys[k], e)
	}
}

func (s *Set) remove(name string) bool {
	el := s.elements[name]
	if el == nil {
		return false
	}
	delete(s.elements, name)
	for _, t := range el.tuples {
		k, m := tupleKey(t, s.decl.Types), s.table(t)
		list := m.keys[k]
		kept := make([]*element, 0, len(list))
		for _, e := range list {
			if e != el {
				kept = append(kept, e)
			}
		}
		if m.keys[k] = kept; len(kept) == 0 {
			delete(m.keys, k)
		}
	}
	return true
}

// table finds or makes the table of a tuple's prefix lengths.
func (s *Set) table(t []prefix) *maskTable {
next:
	for _, m := range s.masks {
		for i := range t {
			if m.bits[i] != t[i].bits {
				continue next
			}
		}
		return m
	}
	m := &maskTable{keys: map[string][]*element{}}
	for _, p := range t {
		m.bits = append(m.bits, p.bits)
	}
	s.masks = append(s.masks, m)
	return m
}

func tupleKey(t []prefix, types []filter.Type) string {
	var b []byte
	for i, p := range t {
		b, _ = appendKey(b, types[i], p.val, p.bits)
	}
	return string(b)
}

// canonical names an element by what it covers, however it is written: an address is
// its own prefix of full length, and a prefix of IPv4 is a range.
func canonical(e Element, types []filter.Type) string {
	var b []byte
	for i, r := range e.Parts {
		lo, hi, bits := r.Lo.Value, r.Hi.Value, whole(types[i])
		switch {
		case r.Lo.Prefix == filter.Full:
		case types[i] == filter.TypeIPv4:
			hi.Num = lo.Num | shiftedOnes(32+r.Lo.Prefix)
		default:
			bits = r.Lo.Prefix
		}
		b, _ = appendKey(b, types[i], lo, whole(types[i]))
		b, _ = appendKey(b, types[i], hi, whole(types[i]))
		b = append(b, byte(bits))
	}
	return string(b)
}

// inherit makes the set that takes old's place: what was added live stays, what
// only the old file declared goes.
func (s *Set) inherit(old *Set) {
	old.mu.RLock()
	defer old.mu.RUnlock()
	for _, e := range old.elements {
		if !e.declared {
			s.put(e.Element, false)
		}
	}
}
