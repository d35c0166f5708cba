package fence

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/firewall"
)

// Compose puts the fence's rules before those of another policy, which need not know the fence and cannot
// open it: what speaks for an address that is not held is dropped before any of its rules is
// looked at. It fails with ErrNoFence where that would not hold. Without addresses the policy stays as it is.
func Compose(c *cluster.Config, name string, text []byte) ([]byte, error) {
	p, _, err := firewall.Parse(name, text)
	if err != nil || len(c.Addresses) == 0 {
		return text, err
	}
	own, _, err := firewall.Parse("the fence", Policy(c))
	if err != nil {
		return nil, err
	}
	if err := composable(c, p, own); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrNoFence, err)
	}
	out, err := merge(c, p, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, verify(c, name, out, p, own)
}

// composable says what of a policy would open the fence, or cannot be beside it.
func composable(c *cluster.Config, p, own *firewall.Policy) error {
	if p.Audit {
		return errors.New("`mode: audit` of the whole policy lets pass what the fence drops: write it at the rules that it is meant for")
	}
	for _, name := range c.Interfaces() {
		if _, ok := guarded(p, name); !ok {
			return fmt.Errorf("%s has virtual addresses, so all that leaves there must be judged: write `guard: [{interfaces: [%s], senders: all}]`, without `hook: tc`, and let pass by rules what is to pass, such as `match: ip || ipv6`", name, name)
		}
	}
	for _, s := range p.Sets {
		switch {
		case s.Name == Set:
			if err := checkSet(c, s); err != nil {
				return err
			}
		case slices.ContainsFunc(own.Sets, func(o *firewall.SetDecl) bool { return o.Name == s.Name }):
			return fmt.Errorf("the set %q has the name of one of the fence's: give it another", s.Name)
		}
	}
	for _, r := range p.Rules {
		if slices.ContainsFunc(own.Rules, func(o *firewall.Rule) bool { return o.Name == r.Name }) || r.Name == malformedRule || r.Name == probeRule {
			return fmt.Errorf("the rule %q has the name of one of the fence's: give it another", r.Name)
		}
		for _, a := range r.Set {
			if a.Field.Name == "arp.src.proto_ipv4" {
				return fmt.Errorf("the rule %q writes a sender's address into ARP frames that have passed the fence", r.Name)
			}
		}
	}
	return nil
}

// guarded says whether everything that leaves an interface is judged, and at which hook: tc does not see who bypasses it.
func guarded(p *firewall.Policy, name string) (at firewall.Hook, ok bool) {
	for _, g := range p.Guard {
		if whole(g) && g.Names(name) {
			at, ok = max(at, g.Hook), true
		}
	}
	return at, ok
}

// whole says whether a guard lets nothing that leaves pass unjudged.
func whole(g firewall.Guard) bool {
	return g.Direction == firewall.Egress && g.AllSenders && g.Hook != firewall.HookTC
}

// exact are the guards of the interfaces with addresses by their own names, where the policy has a pattern: the kernel follows not
// every pattern by itself to an interface that comes later, and when that comes nobody else may live.
func exact(c *cluster.Config, p *firewall.Policy) (list []firewall.Guard) {
	for _, name := range c.Interfaces() {
		at, _ := guarded(p, name)
		if !slices.ContainsFunc(p.Guard, func(g firewall.Guard) bool { return whole(g) && g.Hook == at && slices.Contains(g.Interfaces, name) }) {
			list = append(list, firewall.Guard{Interfaces: []string{name}, AllSenders: true, Hook: at})
		}
	}
	return list
}

const (
	malformedRule = "malformed-arp"
	probeRule     = "probe"
)

// merge writes the fence's guards, sets and rules into a policy's text.
func merge(c *cluster.Config, p *firewall.Policy, text []byte) ([]byte, error) {
	var doc, fence yaml.Node
	if err := errors.Join(yaml.Unmarshal(text, &doc), yaml.Unmarshal(rules(c, p), &fence)); err != nil {
		return nil, err
	}
	to, from := doc.Content[0], fence.Content[0]
	sets, rules := value(to, "sets", yaml.MappingNode), value(to, "rules", yaml.SequenceNode)
	for i, own := 0, value(from, "sets", yaml.MappingNode).Content; i+1 < len(own); i += 2 {
		if !slices.ContainsFunc(p.Sets, func(s *firewall.SetDecl) bool { return s.Name == own[i].Value }) {
			sets.Content = append(sets.Content, own[i], own[i+1])
		}
	}
	rules.Content = append(value(from, "rules", yaml.SequenceNode).Content, rules.Content...)
	guards := value(to, "guard", yaml.SequenceNode)
	for _, g := range exact(c, p) {
		n := mapping("senders", "all", "hook", g.Hook.String())
		value(n, "interfaces", yaml.SequenceNode).Content = []*yaml.Node{{Kind: yaml.ScalarNode, Value: g.Interfaces[0], Style: yaml.DoubleQuotedStyle}}
		guards.Content = append(guards.Content, n)
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(&doc), enc.Close())
	return b.Bytes(), err
}

// rules is the fence as it stands before other rules: the agent's own policy, what lets its probes out, and what holds
// malformed ARP back where the policy has malformed frames judged by its rules. What comes in is no matter of the fence.
func rules(c *cluster.Config, p *firewall.Policy) []byte {
	var doc yaml.Node
	if yaml.Unmarshal(Policy(c), &doc) != nil {
		return nil // it is made here, and always the same but for addresses
	}
	list := value(doc.Content[0], "rules", yaml.SequenceNode)
	if p.MalformedMatch {
		match := "eth.malformed || arp.malformed"
		if c.Fence.IP {
			match += " || ip.malformed"
		}
		list.Content = append([]*yaml.Node{mapping("name", malformedRule, "match", match, "verdict", "drop")}, list.Content...)
	}
	list.Content = append(list.Content, mapping("name", probeRule, "match", "arp.isprobe && arp.dst.proto_ipv4 in @addresses && arp.src.hw_mac == eth.src", "verdict", "accept"))
	if slices.ContainsFunc(p.Guard, func(g firewall.Guard) bool { return g.Direction == firewall.Ingress }) {
		for _, r := range list.Content {
			m := value(r, "match", yaml.ScalarNode)
			m.Value = "!iface.ingress && (" + m.Value + ")"
		}
	}
	b, _ := yaml.Marshal(&doc)
	return b
}

// mapping is one of keys and values, in turns.
func mapping(list ...string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range list {
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: s})
	}
	return n
}

// value is what a mapping has at a key, made if need be.
func value(n *yaml.Node, key string, kind yaml.Kind) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	v := &yaml.Node{Kind: kind}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: key}, v)
	return v
}

// verify fails if what was composed is not the policy with the fence before its rules.
func verify(c *cluster.Config, name string, text []byte, p, own *firewall.Policy) error {
	got, _, err := firewall.Parse(name, text)
	if err != nil {
		return fmt.Errorf("composing it with the fence: %w", err)
	}
	sets := slices.Clone(p.Sets)
	for _, o := range own.Sets {
		if !slices.ContainsFunc(p.Sets, func(s *firewall.SetDecl) bool { return s.Name == o.Name }) {
			sets = append(sets, o)
		}
	}
	n := len(got.Rules) - len(p.Rules)
	same := n > 0 && got.Name == p.Name && got.Default == p.Default && got.MalformedMatch == p.MalformedMatch && !got.Audit && len(got.Tests) == len(p.Tests) &&
		slices.Equal(got.Seal, p.Seal) && reflect.DeepEqual(got.Guard, slices.Concat(p.Guard, exact(c, p))) && reflect.DeepEqual(got.Sets, sets)
	for i := 0; same && i < len(p.Rules); i++ {
		same = sameRule(got.Rules[n+i], p.Rules[i])
	}
	if !same {
		return fmt.Errorf("%s: composed with the fence it is another policy: write it without what YAML has beyond mappings, lists and values", name)
	}
	return nil
}

func sameRule(a, b *firewall.Rule) bool {
	return a.Name == b.Name && a.Does() == b.Does() && a.Log == b.Log && a.Audit == b.Audit && fmt.Sprint(a.Match) == fmt.Sprint(b.Match) &&
		reflect.DeepEqual(a.Limit, b.Limit) && reflect.DeepEqual(a.Set, b.Set)
}
