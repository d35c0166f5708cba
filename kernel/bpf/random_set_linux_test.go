package bpf

import (
	"fmt"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

// randomSet is a set, and the fields it is made for.
type randomSet struct {
	name   string
	fields []*filter.Field
	words  []string // its types
}

// setWords are the types that sets have.
var setWords = map[filter.Type]string{filter.TypeIPv4: "ipv4", filter.TypeIPv6: "ipv6", filter.TypeMAC: "mac", filter.TypeUint: "number", filter.TypeString: "string"}

// drawSets draws which sets the policy has. Tuples are often made of fields in options.
func (m *maker) drawSets() {
	m.types = filter.SetTypes{}
	for i := range m.IntN(5) {
		s := randomSet{name: fmt.Sprint("s", i)}
		n := []int{1, 1, 2, 2, 3, 4}[m.IntN(6)]
		for len(s.fields) < n {
			f := m.field()
			if setWords[f.Type] == "" || n > 1 && optionFields[f.Name] == nil && m.IntN(2) == 0 {
				continue
			}
			s.fields, s.words = append(s.fields, f), append(s.words, setWords[f.Type])
			m.types[s.name] = append(m.types[s.name], f.Type)
		}
		m.sets = append(m.sets, s)
	}
}

// declarations are the sets of a policy file.
func (m *maker) declarations() string {
	if len(m.sets) == 0 {
		return ""
	}
	b := "sets:\n"
	for _, s := range m.sets {
		var elements []string
		for range m.IntN(12) {
			var parts []string
			for _, t := range m.element(s) {
				parts = append(parts, "'"+t+"'")
			}
			elements = append(elements, "["+strings.Join(parts, ", ")+"]")
		}
		b += fmt.Sprintf("  %s: {type: [%s], elements: [%s]}\n", s.name, strings.Join(s.words, ", "), strings.Join(elements, ", "))
	}
	return b
}

// element draws one, of values that one frame has if it has them.
func (m *maker) element(s randomSet) (texts []string) {
	frame := m.working[m.IntN(len(m.working))]
	for _, f := range s.fields {
		m.pkt.Decode(frame, &m.world)
		v, ok := f.Value(&m.pkt, 0)
		if o, more := f.Value(&m.pkt, 1); more && m.IntN(2) == 0 {
			v = o
		}
		if !ok {
			v, _ = m.look(f)
		}
		t := m.constant(f.Type, f.Bits, v)
		switch {
		case f.Name == senderCgroup:
			t = cgroupPaths[m.IntN(4)]
		case f.Type == filter.TypeString:
			if t = strings.Trim(t, `"`); strings.Contains(t, `\`) || len(t) > textRoom {
				t = names[m.IntN(7)]
			}
		case f.Type == filter.TypeUint && len(s.fields) == 1 && m.IntN(4) == 0:
			t = fmt.Sprintf("%d..%d", v.Num, v.Num+uint64(m.IntN(5)))
		}
		texts = append(texts, t)
	}
	return texts
}

// lookup is `(f, g) in @set`, of the fields that the set is made for or of others.
func (m *maker) lookup() string {
	s := m.sets[m.IntN(len(m.sets))]
	var names []string
	for _, f := range s.fields {
		for m.IntN(4) == 0 {
			if g := m.field(); g.Type == f.Type {
				f = g
			}
		}
		names = append(names, f.Name)
	}
	left := names[0]
	if len(names) > 1 {
		left = "(" + strings.Join(names, ", ") + ")"
	}
	return left + []string{" in @", " in @", " not in @"}[m.IntN(3)] + s.name
}
