package bpf

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/postern-fw/postern/firewall"
)

// Handover is what the policy that the engine enforces leaves to the next one; the
// engine must stay open until that is loaded, and nobody may change a set in between.
func (e *Engine) Handover(p *firewall.Policy) (*Handover, error) {
	h := &Handover{Layout: e.layout, Counters: map[string]uint32{}, Limits: map[string]BucketRange{}, Changed: map[string]bool{}, engine: e}
	row, limit := make([]byte, ruleBytes), make([]byte, limitBytes)
	for i, r := range p.Rules {
		if err := e.maps[mapRules].Lookup(uint32(i), row); err != nil {
			return nil, fmt.Errorf("reading rule %q in force: %w", r.Name, err)
		}
		h.Counters[r.Name] = binary.NativeEndian.Uint32(row[ruleSlot:])
		if r.Limit == nil {
			continue
		}
		number := binary.NativeEndian.Uint32(row[4:]) >> ruleLimitShift
		if err := e.maps[mapLimits].Lookup(number, limit); err != nil {
			return nil, fmt.Errorf("reading the limit of rule %q in force: %w", r.Name, err)
		}
		h.Limits[r.Name] = BucketRange{limitText(r.Limit), binary.NativeEndian.Uint32(limit), binary.NativeEndian.Uint32(limit[4:]) + 1}
	}
	for _, slot := range e.layout.Sets {
		state, err := e.set(layoutSet(slot.decl(), slot.Slot)).state()
		if err != nil {
			return nil, err
		}
		h.Changed[slot.Name] = state[1]&setChanged != 0
	}
	return h, nil
}

// handOver brings into the maps that are new what goes on, and clears what is taken anew
// in those that are shared.
func (s *Spec) handOver(e *Engine) error {
	if err := s.handOverCounters(e); err != nil {
		return err
	}
	if err := s.handOverLimits(e); err != nil {
		return err
	}
	return s.handOverSets(e)
}

func (s *Spec) handOverCounters(e *Engine) error {
	counters, cpus := e.maps[mapCounters], ebpf.MustPossibleCPU()
	if s.plan.share[mapCounters] {
		for _, slot := range s.plan.freshCounters {
			if err := counters.Put(slot, make([][2]uint64, cpus)); err != nil {
				return fmt.Errorf("clearing a counter: %w", err)
			}
		}
		return nil
	}
	if s.Options.Before == nil {
		return nil
	}
	kept := []uint32{countDefault, countMalformed, countLost}
	for _, r := range s.Program.Policy.Rules {
		if slot, ok := s.Options.Before.Counters[r.Name]; ok {
			kept = append(kept, slot)
		}
	}
	for _, slot := range kept {
		var n [][2]uint64
		if err := s.Options.Before.engine.maps[mapCounters].Lookup(slot, &n); err != nil {
			return fmt.Errorf("reading a counter: %w", err)
		}
		if err := counters.Put(slot, n); err != nil {
			return fmt.Errorf("moving a counter: %w", err)
		}
	}
	return nil
}

// handOverLimits: a bucket that moves to a new map is that of a moment before the policies are
// exchanged; what is taken from it in between is not counted.
func (s *Spec) handOverLimits(e *Engine) error {
	m := e.maps[mapBuckets]
	if m == nil || s.Options.Before == nil {
		return nil
	}
	if s.plan.share[mapBuckets] {
		for _, r := range s.plan.freshBuckets {
			if err := clearBuckets(m, r); err != nil {
				return err
			}
		}
		return nil
	}
	for _, r := range s.plan.kept {
		for i := r.First; i < r.First+r.N; i++ {
			var b [bucketBytes]byte
			if err := s.Options.Before.engine.maps[mapBuckets].Lookup(i, &b); err != nil {
				return fmt.Errorf("reading a limit's bucket: %w", err)
			}
			if b == ([bucketBytes]byte{}) {
				continue
			}
			if err := m.Put(i, b); err != nil {
				return fmt.Errorf("moving a limit's bucket: %w", err)
			}
		}
	}
	return nil
}

func clearBuckets(m *ebpf.Map, r BucketRange) error {
	t := contents{keySize: 4, valSize: bucketBytes, vals: make([]byte, bucketBytes*int(r.N))}
	for i := range r.N {
		t.keys = binary.NativeEndian.AppendUint32(t.keys, r.First+i)
	}
	if err := t.put(m); err != nil {
		return fmt.Errorf("clearing a limit's buckets: %w", err)
	}
	return nil
}

// handOverSets fills the sets that are not shared, with what the policy declares and with what
// was added to their predecessors live. Masks of those that are shared move along.
func (s *Spec) handOverSets(e *Engine) error {
	before := s.Options.Before
	was := map[string]SetSlot{}
	if before != nil {
		for _, slot := range before.Layout.Sets {
			was[slot.Name] = slot
		}
	}
	for i, l := range s.sets {
		set, slot := e.set(l), s.Layout.Sets[i]
		old, stays := was[slot.Name]
		if s.plan.share[l.mapName()] {
			if err := s.moveMasks(e, l); err != nil {
				return err
			}
			continue
		}
		var members []Member
		for _, el := range l.decl.Elements {
			members = append(members, Member{el, true})
		}
		if stays && sameTypes(old, slot) {
			live, err := before.engine.set(layoutSet(old.decl(), old.Slot)).list()
			if err != nil {
				return err
			}
			declared := map[string]bool{}
			for _, m := range members {
				declared[l.idOf(m)] = true
			}
			now := bootTime()
			for _, m := range live {
				if !m.Declared && (m.Deadline == 0 || m.Deadline > now) && !declared[l.idOf(m)] {
					members = append(members, m)
				}
			}
		}
		if err := set.fill(members); err != nil {
			return err
		}
	}
	return nil
}

func sameTypes(a, b SetSlot) bool { return fmt.Sprint(a.Types, a.Bits) == fmt.Sprint(b.Types, b.Bits) }

// idOf names an element by what it covers.
func (s *setLayout) idOf(m Member) string {
	keys, _ := s.expand(m.Element)
	return s.id(keys)
}

// moveMasks copies a shared set's masks where the map of all masks is a new one.
func (s *Spec) moveMasks(e *Engine, l *setLayout) error {
	if s.plan.share[mapMasks] {
		return nil
	}
	from, to := s.Options.Before.engine.set(l), e.set(l)
	state, err := from.state()
	if err != nil {
		return err
	}
	for i := range state[0] {
		old, row := make([]byte, from.masks.ValueSize()), make([]byte, to.masks.ValueSize())
		at := uint32(l.index*maxMasks) + i
		if err := from.masks.Lookup(at, old); err != nil {
			return fmt.Errorf("set %q: reading a mask: %w", l.decl.Name, err)
		}
		copy(row, old)
		if err := to.masks.Put(at, row); err != nil {
			return fmt.Errorf("set %q: adding a mask: %w", l.decl.Name, err)
		}
	}
	return to.setState(state)
}
