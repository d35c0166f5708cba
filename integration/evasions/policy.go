package evasions

import (
	"embed"
	"slices"
	"strings"
)

// Policy is one role's policy file, and what its live sets hold.
type Policy struct {
	Name string // of the role, and of the policy in the file
	YAML []byte // the file
	// Live are elements to be added once the policy is in force: what the host
	// learnt, as opposed to what it was told.
	Live []Element
}

// Element is an element of a live set, one text for each part.
type Element struct {
	Set   string
	Parts []string
}

//go:embed policies/*.yaml
var files embed.FS

// roles are the policies of one host.
type roles struct {
	node, dhcpHost, dhcpServer, relay, guests *Policy
}

// Policies are the policies of every role that h can be in. Those that Cases
// gives are equal, not the same.
func Policies(h Host) []*Policy {
	p := policies(h)
	return []*Policy{p.node, p.dhcpHost, p.dhcpServer, p.relay, p.guests}
}

func policies(h Host) roles {
	return roles{
		node:       load(h, "node", Element{"vips", []string{h.VIP.String()}}),
		dhcpHost:   load(h, "dhcp-host", Element{"leases", []string{h.MAC.String(), h.IP.String()}}),
		dhcpServer: load(h, "dhcp-server"),
		relay:      load(h, "relay"),
		guests:     load(h, "guests", Element{"guests", []string{h.Guest.String()}}),
	}
}

// load reads a policy and puts h's addresses in the place of those for which it
// is written.
func load(h Host, name string, live ...Element) *Policy {
	b, err := files.ReadFile("policies/" + name + ".yaml")
	if err != nil {
		panic(err) // it is embedded
	}
	return &Policy{Name: name, YAML: []byte(renamer(NewHost(), h).Replace(string(b))), Live: live}
}

// renamer replaces the addresses of one host by another's. The longest goes first:
// 192.0.2.1 is how 192.0.2.10 begins.
func renamer(from, to Host) *strings.Replacer {
	old, names := from.names(), to.names()
	order := make([]int, len(old))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(old[b]) - len(old[a]) })
	var pairs []string
	for _, i := range order {
		pairs = append(pairs, old[i], names[i])
	}
	return strings.NewReplacer(pairs...)
}
