// Package fence is the door that addresses are behind: a policy in the kernel, and the same
// one before the agent's own sockets, whose set `vips` holds what may be announced, each
// element until its deadline. The kernel compares the deadline, so nobody has to live
// for it to pass.
//
// It refuses to know who holds an address, and why.
package fence

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// Set is the name of the set that is the agent's.
const Set = "vips"

// Policy is the text of the agent's own policy: what speaks for one of the addresses leaves
// only while that is in the set, whoever sends it, the kernel's own ARP included.
// All else passes.
func Policy(c *cluster.Config) []byte {
	var b strings.Builder
	b.WriteString("# The fence of postern agent: made from its configuration.\npolicy: postern-agent\nguard:\n  - interfaces: [")
	for i, name := range c.Interfaces() {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", name)
	}
	b.WriteString("]\n    senders: all\nsets:\n")
	fmt.Fprintf(&b, "  %s: {type: ipv4, size: %d} # the agent's\n", Set, room(c))
	b.WriteString("  addresses:\n    type: ipv4\n    elements:\n")
	for _, a := range c.Addresses {
		fmt.Fprintf(&b, "      - %v\n", a.Addr)
	}
	b.WriteString(`rules:
  - name: held
    match: arp.src.proto_ipv4 in @vips && arp.src.hw_mac == eth.src
    verdict: accept
  - name: not-held
    match: arp.src.proto_ipv4 in @addresses
    verdict: drop
    log: true
`)
	if c.Fence.IP {
		b.WriteString(`  - name: not-held-ip
    match: ip.src in @addresses && !(ip.src in @vips)
    verdict: drop
    log: true
`)
	}
	b.WriteString("default: accept\n")
	return []byte(b.String())
}

// ErrNoFence is matched where a policy does not hold back what is not held.
var ErrNoFence = errors.New("the policy is no fence")

// room is how many elements the set must have room for.
func room(c *cluster.Config) int { return 2*len(c.Addresses) + 16 }

// check says what a policy lacks to be a fence.
func check(c *cluster.Config, p *firewall.Policy) error {
	for _, s := range p.Sets {
		if s.Name != Set {
			continue
		}
		if err := checkSet(c, s); err != nil {
			return err
		}
		for _, g := range p.Guard {
			if !g.AllSenders || g.Direction != firewall.Egress {
				return fmt.Errorf("the guard of %s must be `senders: all`, or the kernel's own ARP passes the fence", strings.Join(g.Interfaces, ", "))
			}
		}
		return checkNames(c, p)
	}
	return fmt.Errorf("it has no set %q: write `sets: {%s: {type: ipv4}}` and a rule that lets out what is in it", Set, Set)
}

// checkNames fails where an interface may come up unguarded, or be bypassed: the kernel follows not every pattern by itself.
func checkNames(c *cluster.Config, p *firewall.Policy) error {
	for _, name := range c.Interfaces() {
		if !slices.ContainsFunc(p.Guard, func(g firewall.Guard) bool { return whole(g) && slices.Contains(g.Interfaces, name) }) {
			return fmt.Errorf("%s has virtual addresses: write `guard: [{interfaces: [%s], senders: all}]`, by this name, and without `hook: tc`", name, name)
		}
	}
	return nil
}

func checkSet(c *cluster.Config, s *firewall.SetDecl) error {
	if len(s.Types) != 1 || s.Types[0] != filter.TypeIPv4 || len(s.Elements) > 0 {
		return fmt.Errorf("the set %q must be of type ipv4 and have no elements: it is the agent's", Set)
	}
	if s.Size != 0 && int(s.Size) < room(c) {
		return fmt.Errorf("the set %q has room for %d elements: leave `size` out, or write %d or more", Set, s.Size, room(c))
	}
	return nil
}
