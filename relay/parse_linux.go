package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/message"
)

// ParseConfig reads a relay.yaml. Unknown keys are errors, and errors are firewall.Diagnostics.
func ParseConfig(name string, text []byte) (*Config, error) {
	p := &parser{file: name, lines: strings.Split(string(text), "\n")}
	c := &Config{Mode: ModeRelay, Hops: 4, Option82: Option82{Policy: "drop", Circuit: "{iface}:{vlan}"}}
	if p.decode(text, c) {
		p.check(c)
	}
	if len(p.found) > 0 {
		return nil, p.found
	}
	if c.Control == "" {
		c.Control = c.Database + ".sock"
	}
	return c, nil
}

// parser collects what is wrong with a file.
type parser struct {
	file  string
	lines []string
	root  yaml.Node
	found firewall.Diagnostics
}

// say adds a finding about a node; nil is the file.
func (p *parser) say(n *yaml.Node, hint, format string, args ...any) {
	d := firewall.Diagnostic{File: p.file, Msg: fmt.Sprintf(format, args...), Hint: hint}
	if n != nil && n.Line > 0 && n.Line <= len(p.lines) {
		d.Line, d.Col, d.Len, d.Source = n.Line, n.Column, max(1, utf8.RuneCountInString(n.Value)), p.lines[n.Line-1]
		if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			d.Len += 2
		}
	}
	p.found = append(p.found, d)
}

// decode is false if there is nothing to be checked any further.
func (p *parser) decode(text []byte, c *Config) bool {
	d := yaml.NewDecoder(bytes.NewReader(text))
	switch err := d.Decode(&p.root); {
	case errors.Is(err, io.EOF), err == nil && len(p.root.Content) == 0:
		p.say(nil, "name the interfaces towards clients, and the servers: examples/relay/relay.yaml", "it is empty")
		return false
	case err != nil:
		p.untyped(err.Error())
		return false
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		p.say(nil, "remove the `---`", "more than one document")
		return false
	}
	if p.texts(); len(p.found) > 0 {
		return false
	}
	d = yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	err := d.Decode(c)
	var wrong *yaml.TypeError
	switch {
	case errors.As(err, &wrong):
		for _, text := range wrong.Errors {
			p.untyped(text)
		}
	case err != nil:
		p.untyped(err.Error())
	}
	return err == nil
}

var (
	yamlLine    = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)`)
	yamlUnknown = regexp.MustCompile(`^field (.*) not found in type relay\.(.*)$`)
	yamlValue   = regexp.MustCompile("^cannot unmarshal !!\\w+ `(.*)` into (.*)$")
)

// untyped is a finding of package yaml, which knows the line.
func (p *parser) untyped(text string) {
	n := &yaml.Node{}
	hint := ""
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		n.Line, _ = strconv.Atoi(m[1])
		text, n.Column = m[2], 1
	}
	if m := yamlUnknown.FindStringSubmatch(text); m != nil {
		n.Value, text, hint = m[1], fmt.Sprintf("unknown key %q", m[1]), nearest(m[1], m[2])
	} else if m := yamlValue.FindStringSubmatch(text); m != nil {
		n.Value, text = m[1], fmt.Sprintf("%q is no %s", m[1], m[2])
	}
	if n.Line > 0 && n.Line <= len(p.lines) {
		if at := strings.Index(p.lines[n.Line-1], n.Value); at > 0 {
			n.Column = utf8.RuneCountInString(p.lines[n.Line-1][:at]) + 1
		}
	}
	p.say(n, hint, "%s", text)
}

// nearest suggests a key of a mapping.
func nearest(key, of string) string {
	var known []string
	for _, typ := range []any{Config{}, Option82{}, Interface{}, Static{}} {
		if t := reflect.TypeOf(typ); t.Name() == of {
			for i := range t.NumField() {
				known = append(known, t.Field(i).Tag.Get("yaml"))
			}
		}
	}
	slices.Sort(known)
	for _, k := range known {
		if levenshtein.ComputeDistance(key, k) <= 2 {
			return "did you mean " + strconv.Quote(k) + "?"
		}
	}
	return "known here: " + strings.Join(known, ", ")
}

// texts checks the addresses, whose mistakes package yaml does not place.
func (p *parser) texts() {
	ip := func(n *yaml.Node) error { return new(binding.IPv4).UnmarshalText([]byte(n.Value)) }
	mac := func(n *yaml.Node) error { return new(binding.MAC).UnmarshalText([]byte(n.Value)) }
	check := func(list []*yaml.Node, of func(*yaml.Node) error) {
		for _, n := range list {
			if err := of(n); err != nil {
				p.say(n, "", "%v", err)
			}
		}
	}
	top := p.root.Content[0]
	check(items(at(top, "servers")), ip)
	for _, n := range items(at(top, "interfaces")) {
		check(scalars(at(n, "address"), at(n, "giaddr")), ip)
		check(items(at(n, "servers")), ip)
	}
	for _, n := range items(at(top, "static")) {
		check(scalars(at(n, "ip")), ip)
		check(scalars(at(n, "mac")), mac)
	}
}

// at is the value of a key, or the item of a number; nil if there is none.
func at(n *yaml.Node, path ...any) *yaml.Node {
	for _, step := range path {
		next := (*yaml.Node)(nil)
		switch step := step.(type) {
		case int:
			if list := items(n); step < len(list) {
				next = list[step]
			}
		case string:
			for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next = n.Content[i+1]
				}
			}
		}
		n = next
	}
	return n
}

func items(n *yaml.Node) []*yaml.Node {
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

func scalars(list ...*yaml.Node) (out []*yaml.Node) {
	for _, n := range list {
		if n != nil && n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
			out = append(out, n)
		}
	}
	return out
}

// check finds what is wrong in the configuration's own terms.
func (p *parser) check(c *Config) {
	top := p.root.Content[0]
	if c.Mode != ModeRelay && c.Mode != ModeSnoop {
		p.say(at(top, "mode"), "", "mode: %q is neither relay nor snoop", c.Mode)
	}
	if c.Database == "" {
		p.say(at(top, "database"), "such as /var/lib/postern/relay.db", "database: name a file for the bindings")
	}
	if c.Hops < 1 || c.Hops > 16 {
		p.say(at(top, "hops"), "RFC 1542, 4.1.1", "hops: %d is not 1 to 16", c.Hops)
	}
	p.checkInfo(&c.Option82, at(top, "option82"))
	if len(c.Interfaces) == 0 {
		p.say(at(top, "interfaces"), "", "interfaces: name those towards clients")
	}
	for i := range c.Interfaces {
		p.checkInterface(c, &c.Interfaces[i], i, at(top, "interfaces", i))
	}
	seen := map[binding.IPv4]bool{}
	for i, s := range c.Static {
		n := at(top, "static", i)
		switch {
		case s.IP == 0 || s.Interface == "" || s.MAC == (binding.MAC{}):
			p.say(n, "", "static: %s needs mac, ip and interface", s.IP)
		case len(s.Interface) > 15:
			p.say(at(n, "interface"), "", "static: interfaces have names of at most 15 bytes")
		case seen[s.IP]:
			p.say(at(n, "ip"), "keep one of them", "static: %s stands twice", s.IP)
		}
		seen[s.IP] = true
	}
}

func (p *parser) checkInfo(o *Option82, n *yaml.Node) {
	if !slices.Contains(message.PolicyNames, o.Policy) {
		p.say(at(n, "policy"), "", "option82: policy: %q is none of %s", o.Policy, strings.Join(message.PolicyNames, ", "))
	}
	if err := checkTemplate(o.Circuit, circuitFields); err != nil {
		p.say(at(n, "circuit-id"), "", "option82: circuit-id: %v", err)
	}
	if err := checkTemplate(o.Remote, remoteFields); err != nil {
		p.say(at(n, "remote-id"), "", "option82: remote-id: %v", err)
	}
	if o.Circuit == "" {
		p.say(at(n, "circuit-id"), "", "option82: circuit-id: without it no answer can be told to be for one of our circuits")
	}
}

func (p *parser) checkInterface(c *Config, i *Interface, nth int, n *yaml.Node) {
	for k, name := range i.Names {
		if _, err := path.Match(name, ""); err != nil || name == "" {
			p.say(at(n, "names", k), "", "interfaces: bad name %q", name)
		}
	}
	if len(i.Names) == 0 {
		p.say(n, "", "interfaces: entry %d has no names", nth+1)
	}
	if i.VLAN > 4094 {
		p.say(at(n, "vlan"), "", "interfaces: VLAN %d is not 1 to 4094", i.VLAN)
	}
	if i.Clients < 0 {
		p.say(at(n, "clients"), "", "interfaces: %d clients", i.Clients)
	}
	if c.Mode == ModeRelay && len(i.Servers)+len(c.Servers) == 0 {
		p.say(n, "", "servers: %s has none", strings.Join(i.Names, ", "))
	}
}
