package firewall

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/firewall/filter"
)

var setTypes = map[string]struct {
	typ  filter.Type
	bits int
}{
	"ipv4": {filter.TypeIPv4, 0}, "ipv6": {filter.TypeIPv6, 0}, "mac": {filter.TypeMAC, 0},
	"port": {filter.TypeUint, 16}, "number": {filter.TypeUint, 0}, "string": {filter.TypeString, 0},
}

func (d *decoder) sets(n *yaml.Node, p *Policy) {
	d.types = filter.SetTypes{}
	if n.Kind != yaml.MappingNode {
		d.errorf(n, "write `NAME: {type: ipv4, elements: [192.0.2.1]}`", "sets must be a mapping, not %s", kindOf(n))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if d.types[k.Value] != nil {
			d.errorf(k, "rename one of them", "set name %q stands twice", k.Value)
			continue
		}
		s := d.set(k.Value, v)
		d.types[s.Name] = s.Types
		p.Sets = append(p.Sets, s)
	}
}

func (d *decoder) set(name string, n *yaml.Node) *SetDecl {
	s := &SetDecl{Name: name}
	var elements *yaml.Node
	d.fields(n, "a set", map[string]func(*yaml.Node){
		"type": func(v *yaml.Node) {
			nodes := []*yaml.Node{v}
			if v.Kind == yaml.SequenceNode {
				nodes = v.Content
			}
			for _, v := range nodes {
				var words []string
				for w := range setTypes {
					words = append(words, w)
				}
				sort.Strings(words)
				t := setTypes[d.oneOf(v, "a set's type", words...)]
				s.Types, s.Bits = append(s.Types, t.typ), append(s.Bits, t.bits)
			}
			if len(nodes) > 4 {
				d.errorf(v, "four parts at most", "the tuple is too long")
			}
		},
		"elements": func(v *yaml.Node) { elements = v },
		"size": func(v *yaml.Node) {
			text, _ := d.text(v, "size")
			n, err := strconv.ParseUint(text, 10, 32)
			if err != nil || n == 0 || n > maxSetSize {
				d.errorf(v, fmt.Sprintf("write a number of elements, 1 to %d", maxSetSize), "bad size %q", text)
			}
			s.Size = uint32(n)
		},
	})
	if len(s.Types) == 0 {
		if len(d.diags) == 0 {
			d.errorf(n, "write `type: ipv4`, or `type: [mac, ipv4]` for tuples", "set %q has no type", name)
		}
		return s
	}
	if elements != nil && len(d.diags) == 0 {
		d.each(elements, "elements", func(v *yaml.Node) { d.element(v, s) })
	}
	return s
}

// element reads one element: a scalar, or a list for a tuple.
func (d *decoder) element(n *yaml.Node, s *SetDecl) {
	parts := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		parts = n.Content
	}
	var texts []string
	for _, v := range parts {
		t, ok := d.text(v, "an element")
		if !ok {
			return
		}
		texts = append(texts, t)
	}
	e, err := s.Element(texts...)
	if err != nil {
		d.errorf(n, "", "bad element of set %q: %v", s.Name, err)
		return
	}
	if s.tuples += tuples(e.Parts); s.tuples > maxSetTuples {
		if s.tuples-tuples(e.Parts) <= maxSetTuples { // once
			d.errorf(n, "write CIDR prefixes instead of ranges, and fewer of them",
				"set %q takes more than %d combinations of prefixes from here on", s.Name, maxSetTuples)
		}
		return
	}
	s.Elements = append(s.Elements, e)
}

// maxSetSize bounds `size`: the kernel's table alone takes 16 bytes for each.
const maxSetSize = 1 << 26

// maxSetTuples bounds the look-up entries of a set in a policy file. An address
// or a prefix is one, a range several, and a tuple of ranges their product.
const maxSetTuples = 1 << 21

// tuples is how many entries an element takes.
func tuples(parts []filter.Range) int {
	n := 1
	for _, r := range parts {
		ps, _ := prefixes(r)
		n *= len(ps)
	}
	return n
}

// Element reads an element of the set, one text for each part: a constant, a
// CIDR prefix or an inclusive range `a..b`.
func (s *SetDecl) Element(texts ...string) (Element, error) {
	e := Element{Text: strings.Join(texts, ", ")}
	if len(texts) != len(s.Types) {
		return e, &filter.Error{Msg: "wrong number of parts in " + e.Text, Hint: "one for each type of the set"}
	}
	for i, t := range texts {
		r, err := filter.ParseRange(t, s.Types[i], s.Bits[i])
		if err != nil {
			return e, err
		}
		e.Parts = append(e.Parts, r)
	}
	if _, ok := expand(e.Parts); !ok {
		return e, &filter.Error{Msg: "the ranges of " + e.Text + " are too many prefixes", Hint: "use CIDR prefixes"}
	}
	return e, nil
}
