package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

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
	// Set is the set of the policy in force that holds the bindings, BPFFS where that
	// policy is pinned.
	Set   string `yaml:"set"`
	BPFFS string `yaml:"bpffs"`
	// Static bindings have no lease.
	Static []Static `yaml:"static"`
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

// ErrConfig is matched by what is wrong with a configuration.
var ErrConfig = errors.New("configuration of the relay")

// ParseConfig reads a relay.yaml. Unknown keys are errors.
func ParseConfig(name string, text []byte) (*Config, error) {
	c := &Config{Mode: ModeRelay, Hops: 4, Option82: Option82{Policy: "drop", Circuit: "{iface}:{vlan}"}}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty; name the interfaces towards clients, and the servers")
		}
		return nil, fmt.Errorf("%s: %w: %w", name, ErrConfig, err)
	}
	if err := d.Decode(new(Config)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w: more than one document", name, ErrConfig)
	}
	if problems := c.problems(); len(problems) > 0 {
		return nil, fmt.Errorf("%s: %w: %s", name, ErrConfig, strings.Join(problems, "; "))
	}
	if c.Control == "" {
		c.Control = c.Database + ".sock"
	}
	return c, nil
}

func (c *Config) problems() (list []string) {
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if c.Mode != ModeRelay && c.Mode != ModeSnoop {
		say("mode: %q is neither relay nor snoop", c.Mode)
	}
	if c.Database == "" {
		say("database: name a file for the bindings, such as /var/lib/postern/relay.db")
	}
	if c.Hops < 1 || c.Hops > 16 {
		say("hops: %d is not 1 to 16 (RFC 1542, 4.1.1)", c.Hops)
	}
	if !slices.Contains(message.PolicyNames, c.Option82.Policy) {
		say("option82: policy: %q is none of %s", c.Option82.Policy, strings.Join(message.PolicyNames, ", "))
	}
	if err := checkTemplate(c.Option82.Circuit, circuitFields); err != nil {
		say("option82: circuit-id: %v", err)
	}
	if err := checkTemplate(c.Option82.Remote, remoteFields); err != nil {
		say("option82: remote-id: %v", err)
	}
	if c.Option82.Circuit == "" {
		say("option82: circuit-id: without it no answer can be told to be for one of our circuits")
	}
	if len(c.Interfaces) == 0 {
		say("interfaces: name those towards clients")
	}
	for i := range c.Interfaces {
		n := &c.Interfaces[i]
		for _, name := range n.Names {
			if _, err := path.Match(name, ""); err != nil || name == "" {
				say("interfaces: bad name %q", name)
			}
		}
		if len(n.Names) == 0 {
			say("interfaces: entry %d has no names", i+1)
		}
		if n.VLAN > 4094 {
			say("interfaces: VLAN %d is not 1 to 4094", n.VLAN)
		}
		if n.Clients < 0 {
			say("interfaces: %d clients", n.Clients)
		}
		if c.Mode == ModeRelay && len(n.Servers)+len(c.Servers) == 0 {
			say("servers: %s has none", strings.Join(n.Names, ", "))
		}
	}
	for _, s := range c.Static {
		if s.IP == 0 || s.Interface == "" || s.MAC == (binding.MAC{}) {
			say("static: %s needs mac, ip and interface", s.IP)
		}
	}
	return list
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

// bindings are the static ones.
func (c *Config) bindings() (list []binding.Change) {
	for _, s := range c.Static {
		list = append(list, binding.Change{Binding: binding.Binding{
			IP: s.IP, MAC: s.MAC, Place: binding.Place{Interface: s.Interface, VLAN: s.VLAN}, Static: true}})
	}
	return list
}

func (c *Config) policy() message.Policy {
	return message.Policy(slices.Index(message.PolicyNames, c.Option82.Policy))
}
