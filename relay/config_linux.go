package relay

import (
	"path"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/message"
)

// The modes.
const (
	ModeRelay = "relay" // a relay agent
	ModeSnoop = "snoop" // a listener on the ports of a bridge
)

// Config is a relay.yaml.
type Config struct {
	Mode string `yaml:"mode"`
	// Database is the file of the bindings, Control the UNIX socket of `postern bindings`.
	Database string `yaml:"database"`
	Control  string `yaml:"control"`
	// Servers get what clients send, and only they are believed.
	Servers []binding.IPv4 `yaml:"servers"`
	// Hops is how many relay agents a message may have passed when it leaves here.
	Hops     int      `yaml:"hops"`
	Option82 Option82 `yaml:"option82"`
	// Interfaces are those towards clients.
	Interfaces []Interface `yaml:"interfaces"`
	// Policy is a policy file for what is sent to clients, in place of the one built in.
	Policy string `yaml:"policy"`
	// Set is the sets of the policy in force that hold the bindings, BPFFS where that
	// policy is pinned.
	Set   Names  `yaml:"set"`
	BPFFS string `yaml:"bpffs"`
	// Static bindings have no lease.
	Static []Static `yaml:"static"`
}

// Names are a list, or one name alone.
type Names []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (n *Names) UnmarshalYAML(v *yaml.Node) error {
	if v.Kind != yaml.ScalarNode {
		return v.Decode((*[]string)(n))
	}
	*n = nil
	if v.Value != "" {
		*n = Names{v.Value}
	}
	return nil
}

// Option82 is the relay agent information (RFC 3046).
type Option82 struct {
	// Policy is for messages that carry some already: drop, keep, replace, append.
	Policy string `yaml:"policy"`
	// Circuit and Remote are templates of the circuit ID and the remote ID.
	Circuit string `yaml:"circuit-id"`
	Remote  string `yaml:"remote-id"`
	// Override has clients speak to servers through the agent alone (RFC 5107).
	Override bool `yaml:"server-id-override"`
}

// Interface is one towards clients, or all that a name with `*` stands for.
type Interface struct {
	Names []string `yaml:"names"`
	// VLAN is the tag of the clients' frames; 0 is none.
	VLAN uint16 `yaml:"vlan"`
	// Address is the agent's towards clients, which tells servers the network; 0 is the
	// interface's first one.
	Address binding.IPv4 `yaml:"address"`
	// GIAddr is where servers send their answers, if that is another one. The address then
	// goes along as link selection (RFC 3527).
	GIAddr binding.IPv4 `yaml:"giaddr"`
	// Servers are this interface's, in place of everybody's.
	Servers []binding.IPv4 `yaml:"servers"`
	// Trusted interfaces lead to another relay agent: messages with a giaddr are relayed.
	Trusted bool `yaml:"trusted"`
	// Clients is how many there may be; 0 is any number.
	Clients int `yaml:"clients"`
}

// Static is a binding of the configuration.
type Static struct {
	MAC       binding.MAC  `yaml:"mac"`
	IP        binding.IPv4 `yaml:"ip"`
	Interface string       `yaml:"interface"`
	VLAN      uint16       `yaml:"vlan"`
}

// entry is the configuration of an interface and a VLAN on it, nil if it is not towards clients.
// The first that names it counts.
func (c *Config) entry(iface string, vlan uint16) *Interface {
	for i := range c.Interfaces {
		if n := &c.Interfaces[i]; n.VLAN == vlan && n.names(iface) {
			return n
		}
	}
	return nil
}

// vlans are those on which an interface leads to clients.
func (c *Config) vlans(iface string) (list []uint16) {
	for i := range c.Interfaces {
		if n := &c.Interfaces[i]; n.names(iface) && !slices.Contains(list, n.VLAN) {
			list = append(list, n.VLAN)
		}
	}
	return list
}

func (n *Interface) names(iface string) bool {
	return slices.ContainsFunc(n.Names, func(glob string) bool {
		ok, err := path.Match(glob, iface)
		return ok && err == nil
	})
}

// static is what has to change in all bindings, so that the static ones are the configuration's.
func (c *Config) static(all []binding.Binding) (list []binding.Change) {
	want := map[binding.IPv4]binding.Binding{}
	for _, s := range c.Static {
		want[s.IP] = binding.Binding{IP: s.IP, MAC: s.MAC, Place: binding.Place{Interface: s.Interface, VLAN: s.VLAN}, Static: true}
	}
	for _, b := range all {
		if w, ok := want[b.IP]; ok && w == b {
			delete(want, b.IP)
		} else if b.Static {
			list = append(list, binding.Change{Binding: b, Gone: true})
		}
	}
	for _, b := range want {
		list = append(list, binding.Change{Binding: b})
	}
	return list
}

func (c *Config) policy() message.Policy {
	return message.Policy(slices.Index(message.PolicyNames, c.Option82.Policy))
}
