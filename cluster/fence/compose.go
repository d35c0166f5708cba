package fence

import (
	"bytes"
	"errors"
	"fmt"
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
	return out, verify(name, out, p)
}

// composable says what of a policy would open the fence, or cannot be beside it.
func composable(c *cluster.Config, p, own *firewall.Policy) error {
	if p.Audit {
		return errors.New("`mode: audit` of the whole policy lets pass what the fence drops: write it at the rules that it is meant for")
	}
	for _, name := range c.Interfaces() {
		if !guarded(p, name) {
			return fmt.Errorf("%s has virtual addresses, so all that leaves there must be judged: write `guard: [{interfaces: [%s], senders: all}]`, without `hook: tc`, and let pass by rules what is to pass, such as `match: ip || ipv6`", name, name)
		}
	}
	for _, s := range p.Sets {
		switch {
		case s.Name == Set:
			if err := checkSet(s); err != nil {
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

// guarded says whether everything that leaves an interface is judged: tc does not see who bypasses it.
func guarded(p *firewall.Policy, name string) bool {
	return slices.ContainsFunc(p.Guard, func(g firewall.Guard) bool {
		return g.Direction == firewall.Egress && g.AllSenders && g.Hook != firewall.HookTC && g.Names(name)
	})
}

const (
	malformedRule = "malformed-arp"
	probeRule     = "probe"
)

// merge writes the fence's sets and rules into a policy's text.
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
		list.Content = append([]*yaml.Node{rule(malformedRule, match, "drop")}, list.Content...)
	}
	list.Content = append(list.Content, rule(probeRule, "arp.isprobe && arp.dst.proto_ipv4 in @addresses && arp.src.hw_mac == eth.src", "accept"))
	if slices.ContainsFunc(p.Guard, func(g firewall.Guard) bool { return g.Direction == firewall.Ingress }) {
		for _, r := range list.Content {
			m := value(r, "match", yaml.ScalarNode)
			m.Value = "!iface.ingress && (" + m.Value + ")"
		}
	}
	b, _ := yaml.Marshal(&doc)
	return b
}

func rule(name, match, verdict string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range []string{"name", name, "match", match, "verdict", verdict} {
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

// verify fails if what was composed is not the policy with other rules before its own.
func verify(name string, text []byte, p *firewall.Policy) error {
	got, _, err := firewall.Parse(name, text)
	if err != nil {
		return fmt.Errorf("composing it with the fence: %w", err)
	}
	n := len(got.Rules) - len(p.Rules)
	same := n > 0 && got.Name == p.Name && got.Default == p.Default && !got.Audit && len(got.Tests) == len(p.Tests) && len(got.Guard) == len(p.Guard) && len(got.Sets) >= len(p.Sets)
	for i := 0; same && i < len(p.Rules); i++ {
		a, b := got.Rules[n+i], p.Rules[i]
		same = a.Name == b.Name && a.Does() == b.Does() && fmt.Sprint(a.Match) == fmt.Sprint(b.Match)
	}
	if !same {
		return fmt.Errorf("%s: composed with the fence it is another policy: write it without what YAML has beyond mappings, lists and values", name)
	}
	return nil
}
