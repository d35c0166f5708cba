package firewall

import (
	"encoding/hex"
	"net"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Parse reads a policy file; name appears in its diagnostics. The error is a
// Diagnostics. warnings come with a sound policy.
func Parse(name string, src []byte) (p *Policy, warnings Diagnostics, err error) {
	d := &decoder{file: name}
	p = &Policy{}
	if n := d.parse(src); n != nil {
		d.policy(n, p)
	}
	if len(d.diags) > 0 {
		return nil, nil, d.diags
	}
	for _, u := range unreachable(p) {
		d.errorf(u.at, u.hint, "%s", u.msg)
	}
	for i := range d.diags {
		d.diags[i].Warning = true
	}
	return p, d.diags, nil
}

// policy reads the whole mapping. Sets come before rules, whatever the order of
// the file, since expressions need their types.
func (d *decoder) policy(n *yaml.Node, p *Policy) {
	var guard, sets, rules, tests *yaml.Node
	var hook Hook
	keep := func(at **yaml.Node) func(*yaml.Node) { return func(v *yaml.Node) { *at = v } }
	d.fields(n, "the policy", map[string]func(*yaml.Node){
		"policy": func(v *yaml.Node) { p.Name, _ = d.text(v, "policy") },
		"guard":  keep(&guard), "sets": keep(&sets), "rules": keep(&rules), "tests": keep(&tests),
		"default": func(v *yaml.Node) {
			if d.oneOf(v, "default", "drop", "accept") == "accept" {
				p.Default = Accept
			}
		},
		"malformed": func(v *yaml.Node) { p.MalformedMatch = d.oneOf(v, "malformed", "drop", "match") == "match" },
		"mode":      func(v *yaml.Node) { p.Audit = d.oneOf(v, "mode", "enforce", "audit") == "audit" },
		"hook":      func(v *yaml.Node) { hook = d.hook(v) },
		"seal":      func(v *yaml.Node) { p.Seal = d.seal(v) },
	})
	if n.Kind == yaml.MappingNode && p.Name == "" && len(d.diags) == 0 {
		d.errorf(n, "write `policy: NAME` at the top", "the policy has no name")
	}
	if guard != nil {
		d.each(guard, "guard", func(v *yaml.Node) { p.Guard = append(p.Guard, d.guard(v, hook)) })
	}
	if sets != nil {
		d.sets(sets, p)
	}
	if rules != nil {
		d.rules(rules, p)
	}
	if tests != nil {
		d.each(tests, "tests", func(v *yaml.Node) { d.test(v, p) })
	}
}

// hook reads which hook the kernel judges at.
func (d *decoder) hook(n *yaml.Node) Hook {
	return Hook(max(0, slices.Index(hooks, d.oneOf(n, "hook", hooks...))))
}

// seal reads one cgroup, or a list of them.
func (d *decoder) seal(n *yaml.Node) (list []string) {
	one := func(v *yaml.Node) {
		s, ok := d.text(v, "a cgroup")
		if ok && (s == "" || slices.Contains(strings.Split(s, "/"), "..")) {
			d.errorf(v, "write its path below the cgroup2 mount, such as /system.slice, or / for all", "bad cgroup %q", s)
		}
		list = append(list, s)
	}
	if n.Kind == yaml.ScalarNode {
		one(n)
		return list
	}
	d.each(n, "seal", one)
	return list
}

// guard reads one guard; hook is the policy's own.
func (d *decoder) guard(n *yaml.Node, hook Hook) (g Guard) {
	g.Hook = hook
	var senders, own *yaml.Node
	d.fields(n, "guard", map[string]func(*yaml.Node){
		"interfaces": func(v *yaml.Node) {
			d.each(v, "interfaces", func(v *yaml.Node) {
				s, ok := d.text(v, "an interface")
				if _, err := path.Match(s, ""); ok && (err != nil || s == "") {
					d.errorf(v, "globs know `*`, `?` and `[a-z]`", "bad interface name %q", s)
				}
				g.Interfaces = append(g.Interfaces, s)
			})
		},
		"direction": func(v *yaml.Node) {
			if d.oneOf(v, "direction", "egress", "ingress") == "ingress" {
				g.Direction = Ingress
			}
		},
		"senders": func(v *yaml.Node) {
			senders, g.AllSenders = v, d.oneOf(v, "senders", "packet-sockets", "all") == "all"
		},
		"hook": func(v *yaml.Node) { own, g.Hook = v, d.hook(v) },
	})
	if g.Direction == Ingress {
		switch {
		case senders != nil && !g.AllSenders:
			d.errorf(senders, "leave it out: all that comes in is judged", "what comes in was sent elsewhere, by no socket that is known here")
		case own != nil && g.Hook == HookGate:
			d.errorf(own, "write tc or auto", "the gate is at the egress only")
		}
		g.AllSenders, g.Hook = true, HookTC
	}
	if len(g.Interfaces) == 0 && len(d.diags) == 0 {
		d.errorf(n, "write `interfaces: [eth0]`, or `[\"*\"]` for all", "the guard names no interface")
	}
	return g
}

func (d *decoder) test(n *yaml.Node, p *Policy) {
	t, hasFrame, hasExpect := Test{Line: n.Line}, false, false
	d.fields(n, "a test", map[string]func(*yaml.Node){
		"name":       func(v *yaml.Node) { t.Name, _ = d.text(v, "name") },
		"rule":       func(v *yaml.Node) { t.Rule, _ = d.text(v, "rule") },
		"iface.name": func(v *yaml.Node) { t.Iface, _ = d.text(v, "iface.name") },
		"iface.mac": func(v *yaml.Node) {
			s, _ := d.text(v, "iface.mac")
			mac, err := net.ParseMAC(s)
			if err != nil || len(mac) != len(t.IfaceMAC) {
				d.errorf(v, "write six bytes: 02:00:00:00:00:01", "bad iface.mac %q", s)
				return
			}
			t.HasIfaceMAC = copy(t.IfaceMAC[:], mac) == len(t.IfaceMAC)
		},
		"iface.mark":    func(v *yaml.Node) { t.Mark = d.mark(v) },
		"iface.ingress": func(v *yaml.Node) { t.Ingress = d.boolean(v, "iface.ingress") },
		"frame": func(v *yaml.Node) {
			s, _ := d.text(v, "frame")
			b, err := hex.DecodeString(strings.NewReplacer(":", "", "\n", "").Replace(strings.Join(strings.Fields(s), "")))
			if err != nil {
				d.errorf(v, "write the frame's bytes in hex, from the destination address on", "bad frame: %v", err)
			}
			t.Frame, hasFrame = b, true
		},
		"expect": func(v *yaml.Node) {
			var r Rule
			d.verdict(v, &r)
			if !r.Action.Terminal() {
				d.errorf(v, "write drop, accept or {forward: IFACE}", "a test expects a final verdict")
			}
			t.Expect, t.ExpectIface, hasExpect = Verdict(r.Action), r.Iface, true
		},
	})
	if (!hasFrame || !hasExpect) && len(d.diags) == 0 {
		d.errorf(n, "write {name: …, frame: HEX, expect: drop}", "a test needs `frame` and `expect`")
	}
	p.Tests = append(p.Tests, t)
}
