package firewall

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/firewall/filter"
)

func (d *decoder) rules(n *yaml.Node, p *Policy) {
	first := map[string]int{}
	d.each(n, "rules", func(v *yaml.Node) {
		r := &Rule{Line: v.Line, Audit: p.Audit, node: v}
		hasVerdict := false
		d.fields(v, "a rule", map[string]func(*yaml.Node){
			"name":  func(v *yaml.Node) { r.Name, _ = d.text(v, "name"); r.node = v },
			"match": func(v *yaml.Node) { r.Match = d.match(v) },
			"limit": func(v *yaml.Node) { r.Limit = d.limit(v) },
			"log":   func(v *yaml.Node) { r.Log = d.boolean(v, "log") },
			"mode": func(v *yaml.Node) {
				r.Audit = d.oneOf(v, "mode", "enforce", "audit") == "audit" || p.Audit
			},
			"verdict": func(v *yaml.Node) { d.verdict(v, r); hasVerdict = true },
		})
		switch line := first[r.Name]; {
		case v.Kind != yaml.MappingNode:
			return
		case r.Name == "" || r.Name == "default" || r.Name == "malformed":
			d.errorf(r.node, "give it a name of its own: `name: no-rogue-server`", "a rule cannot be named %q", r.Name)
		case line != 0:
			d.errorf(r.node, "rename one of them: refusals are reported by name", "rule name %q stands twice, first in line %d", r.Name, line)
		case !hasVerdict:
			d.errorf(r.node, "write `verdict: drop`, or accept, {forward: IFACE}, {duplicate: IFACE}, {mark: N}, {set: {…}}", "rule %q has no verdict", r.Name)
		}
		first[r.Name] = r.Line
		p.Rules = append(p.Rules, r)
	})
}

// match reads an expression; its mistakes are shown at their place in the file.
func (d *decoder) match(n *yaml.Node) filter.Expr {
	s, ok := d.text(n, "match")
	if !ok {
		return nil
	}
	e, err := filter.Parse(s, d.types)
	var fe *filter.Error
	if errors.As(err, &fe) {
		line, col := d.locate(n, min(fe.Offset, len(s)))
		length := runes(s[min(fe.Offset, len(s)):min(fe.Offset+fe.Len, len(s))])
		d.report(line, col, length, fe.Msg, fe.Hint)
	} else if err != nil {
		d.errorf(n, "", "%v", err)
	}
	return e
}

// locate finds where the byte at offset of a scalar's value stands in the file:
// YAML folds lines and strips indentation on the way. Escapes end the search,
// and the scalar's start must do.
func (d *decoder) locate(n *yaml.Node, offset int) (line, col int) {
	line, col = n.Line, n.Column
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		line, col = line+1, 1
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		col++
	}
	want := []rune(n.Value[:offset])
	for line <= len(d.lines) {
		src := []rune(d.lines[line-1])
		for col <= len(src) {
			c := src[col-1]
			switch {
			case len(want) == 0 && c != ' ':
				return line, col
			case len(want) > 0 && want[0] == c:
				want = want[1:]
			case c != ' ' && c != '\t' && c != '\r':
				return n.Line, n.Column
			}
			col++
		}
		if len(want) == 0 {
			return line, col
		}
		for len(want) > 0 && (want[0] == ' ' || want[0] == '\n') {
			want = want[1:]
		}
		line, col = line+1, 1
	}
	return n.Line, n.Column
}

// verdict reads `accept`, `drop`, or a mapping with one key.
func (d *decoder) verdict(n *yaml.Node, r *Rule) {
	if n.Kind == yaml.ScalarNode {
		if d.oneOf(n, "verdict", "drop", "accept") == "accept" {
			r.Action = ActionAccept
		}
		return
	}
	device := func(a Action) func(*yaml.Node) {
		return func(v *yaml.Node) {
			r.Action = a
			if r.Iface, _ = d.text(v, "an interface"); r.Iface == "" || len(r.Iface) > 15 || strings.ContainsAny(r.Iface, "/*? ") {
				d.errorf(v, "name one interface", "%q cannot be an interface", r.Iface)
			}
		}
	}
	d.fields(n, "verdict", map[string]func(*yaml.Node){
		"forward": device(ActionForward), "duplicate": device(ActionDuplicate),
		"mark": func(v *yaml.Node) {
			r.Action, r.Mark = ActionMark, d.mark(v)
		},
		"set": func(v *yaml.Node) { r.Action = ActionSet; d.assignments(v, r) },
	})
	if n.Kind == yaml.MappingNode && len(n.Content) != 2 {
		d.errorf(n, "write one rule for each", "a rule has one verdict, not %d", len(n.Content)/2)
	}
}

func (d *decoder) mark(n *yaml.Node) uint32 {
	s, _ := d.text(n, "mark")
	m, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		d.errorf(n, "write a number from 0 to 0xffffffff", "bad mark %q", s)
	}
	return uint32(m)
}

func (d *decoder) assignments(n *yaml.Node, r *Rule) {
	known := map[string]func(*yaml.Node){}
	for name := range writable {
		f := filter.Lookup(name)
		known[name] = func(v *yaml.Node) {
			s, _ := d.text(v, name)
			c, err := filter.ParseConst(s, f.Type, f.Bits)
			if err != nil || c.Prefix != filter.Full {
				d.errorf(v, "", "bad value for %s: %q", name, s)
				return
			}
			r.Set = append(r.Set, Assignment{f, c.Value})
		}
	}
	d.fields(n, "set", known)
	if len(n.Content) == 0 {
		d.errorf(n, "write `set: {eth.dst: 02:00:00:00:00:01}`", "set changes nothing")
	}
}

var rateForm = regexp.MustCompile(`^([0-9]+)/(s|second|m|min|minute|h|hour|d|day)$`)

func (d *decoder) limit(n *yaml.Node) *Limit {
	l := &Limit{}
	d.fields(n, "limit", map[string]func(*yaml.Node){
		"rate": func(v *yaml.Node) {
			s, _ := d.text(v, "rate")
			m := rateForm.FindStringSubmatch(s)
			if m != nil {
				l.Tokens, _ = strconv.ParseUint(m[1], 10, 32)
				l.Interval = int64(map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[m[2][0]])
			}
			if l.Tokens == 0 {
				d.errorf(v, "write frames per second, minute, hour or day: 10/s, 5/m", "bad rate %q", s)
			}
		},
		"burst": func(v *yaml.Node) {
			s, _ := d.text(v, "burst")
			if l.Burst, _ = strconv.ParseUint(s, 10, 20); l.Burst == 0 {
				d.errorf(v, "write a number of frames from 1 to 1048575", "bad burst %q", s)
			}
		},
		"per": func(v *yaml.Node) {
			nodes := []*yaml.Node{v}
			if v.Kind == yaml.SequenceNode {
				nodes = v.Content
			}
			for _, v := range nodes {
				s, _ := d.text(v, "per")
				f := filter.Lookup(s)
				if f == nil || f.Type == filter.TypeProtocol {
					d.errorf(v, suggest(s), "unknown field %q", s)
					continue
				}
				l.Per = append(l.Per, f)
			}
			if len(l.Per) > 4 {
				d.errorf(v, "name at most four", "too many fields under per")
			}
		},
	})
	if l.Tokens == 0 && len(d.diags) == 0 {
		d.errorf(n, "write {rate: 10/s}", "the limit has no rate")
	}
	if l.Burst == 0 {
		l.Burst = l.Tokens
	}
	return l
}

func suggest(name string) string {
	if s := filter.Suggest(name); len(s) > 0 {
		return "did you mean " + strings.Join(s, ", ") + "?"
	}
	return "docs/fields.md lists the fields"
}
