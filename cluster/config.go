package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Config is an agent's configuration file.
type Config struct {
	// Node is this node's name; without one it is the host's.
	Node string `yaml:"node"`
	// Interface is where addresses are that do not name theirs.
	Interface string `yaml:"interface"`
	// Etcd is where the leases are; without it the node is alone, and holds all.
	Etcd *Etcd `yaml:"etcd"`
	// Lease is how long a node that is not heard of holds its addresses, Margin by how
	// much the doors shut earlier.
	Lease  time.Duration `yaml:"lease"`
	Margin time.Duration `yaml:"margin"`
	Fence  FenceConfig   `yaml:"fence"`
	// Policy has the node take the cluster's policy (postern cluster); without it, it takes none.
	Policy *ClusterPolicy `yaml:"cluster-policy"`
	// OnInterface puts addresses that are held on their interfaces.
	OnInterface *bool            `yaml:"on-interface"`
	Announce    AnnounceConfig   `yaml:"announce"`
	Checks      map[string]Check `yaml:"checks"`
	Entries     []AddressEntry   `yaml:"addresses"`
	Metrics     string           `yaml:"metrics"`

	// Addresses are the entries', one by one, in order.
	Addresses []Address `yaml:"-"`
}

// Etcd is an etcd cluster and what is needed to talk to it.
type Etcd struct {
	Endpoints    []string `yaml:"endpoints"`
	Prefix       string   `yaml:"prefix"`
	CA           string   `yaml:"ca"`
	Cert         string   `yaml:"cert"`
	Key          string   `yaml:"key"`
	User         string   `yaml:"user"`
	PasswordFile string   `yaml:"password-file"`
}

// FenceConfig says what the fence holds back of an address that is not held.
type FenceConfig struct {
	// IP holds back IPv4 packets from the address, and not ARP alone.
	IP bool `yaml:"ip"`
	// Policy is a policy file to put in force instead of the agent's own; its set `vips`
	// of type ipv4 is the agent's.
	Policy string `yaml:"policy"`
}

// ClusterPolicy says how a node takes the policy of the cluster.
type ClusterPolicy struct {
	// State is a directory where the last good policy is kept for the next start.
	State string `yaml:"state"`
	// Trial is for how long a new policy is in force before the kernel goes back by itself, unless the
	// node reaches etcd through it.
	Trial time.Duration `yaml:"trial"`
}

// AnnounceConfig says how addresses are announced.
type AnnounceConfig struct {
	// Count announcements, an Interval apart; then one at each Refresh.
	Count    int           `yaml:"count"`
	Interval time.Duration `yaml:"interval"`
	Refresh  time.Duration `yaml:"refresh"`
	// Rate is how many frames a second leave an interface at most, after Burst.
	Rate  int `yaml:"rate"`
	Burst int `yaml:"burst"`
	// Probe asks before a first claim whether somebody uses the address.
	Probe *bool `yaml:"probe"`
	// ProbeInterval is the second that RFC 5227 counts in.
	ProbeInterval time.Duration `yaml:"probe-interval"`
	// Defend is the time between two defences of an address that somebody else announces.
	Defend time.Duration `yaml:"defend"`
}

// Check is a health check; exactly one of the first three is set.
type Check struct {
	Exec []string `yaml:"exec"`
	TCP  string   `yaml:"tcp"`
	HTTP string   `yaml:"http"`

	Interval time.Duration `yaml:"interval"`
	Timeout  time.Duration `yaml:"timeout"`
	// Fall failures in a row take addresses away, Rise successes give them back.
	Fall int `yaml:"fall"`
	Rise int `yaml:"rise"`
}

// AddressEntry is one or more addresses: A.B.C.D, A.B.C.D/N or A.B.C.D-E.F.G.H.
type AddressEntry struct {
	Address   string   `yaml:"address"`
	Interface string   `yaml:"interface"`
	Prefer    []string `yaml:"prefer"`
	Apart     string   `yaml:"apart"`
	Check     string   `yaml:"check"`
}

// Address is a virtual address.
type Address struct {
	netip.Addr
	Interface string
	// Prefer are nodes, the best first.
	Prefer []string
	// Apart names a group whose addresses should be on different nodes.
	Apart string
	Check string
}

const maxAddresses = 10000

// ParseConfig reads a configuration file; name appears in its errors.
func ParseConfig(name string, text []byte) (*Config, error) {
	c := &Config{}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	c.defaults()
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func (c *Config) defaults() {
	yes := true
	if c.Node == "" {
		c.Node, _ = os.Hostname()
	}
	or(&c.Lease, 3*time.Second)
	or(&c.Margin, c.Lease/10)
	or(&c.OnInterface, &yes)
	a := &c.Announce
	or(&a.Count, 3)
	or(&a.Interval, time.Second)
	or(&a.Refresh, time.Minute)
	or(&a.Rate, 200)
	or(&a.Burst, 50)
	or(&a.Probe, &yes)
	or(&a.ProbeInterval, time.Second)
	or(&a.Defend, 10*time.Second)
	if c.Etcd != nil {
		or(&c.Etcd.Prefix, "/postern/")
		if !strings.HasSuffix(c.Etcd.Prefix, "/") {
			c.Etcd.Prefix += "/"
		}
	}
	if p := c.Policy; p != nil {
		or(&p.State, "/var/lib/postern")
		or(&p.Trial, 10*time.Second)
	}
	for name, k := range c.Checks {
		or(&k.Interval, 2*time.Second)
		or(&k.Timeout, min(time.Second, k.Interval))
		or(&k.Fall, 3)
		or(&k.Rise, 2)
		c.Checks[name] = k
	}
}

func or[T comparable](at *T, otherwise T) {
	var zero T
	if *at == zero {
		*at = otherwise
	}
}

func (c *Config) check() error {
	switch {
	case !NodeName(c.Node):
		return fmt.Errorf("bad node name %q: write `node: NAME`, at most 64 bytes of printable ASCII without blanks and slashes", c.Node)
	case c.Lease < 2*time.Second || c.Lease%time.Second != 0 || c.Lease > time.Hour:
		return fmt.Errorf("bad lease %v: etcd counts whole seconds; write 2s or more (3s outlives the election of a new etcd leader)", c.Lease)
	case c.Margin <= 0 || c.Margin > c.Lease/2:
		return fmt.Errorf("bad margin %v: write more than nothing and at most half of the lease (%v)", c.Margin, c.Lease)
	case len(c.Entries) == 0 && c.Policy == nil:
		return errors.New("no addresses: write `addresses: [{address: 192.0.2.10}]`, or `cluster-policy: {}` for a node that only takes the cluster's policy")
	case c.Policy != nil && c.Etcd == nil:
		return errors.New("cluster-policy: it is kept in etcd: write `etcd: {endpoints: [...]}`, or leave it out")
	case c.Policy != nil && c.Fence.Policy != "":
		return errors.New("cluster-policy: the cluster's policy takes the place of fence.policy: leave out one of them")
	case c.Policy != nil && (c.Policy.Trial < time.Second || c.Policy.Trial > time.Hour):
		return fmt.Errorf("cluster-policy: bad trial %v: write 1s or more, long enough to reach etcd anew", c.Policy.Trial)
	case c.Policy != nil && !filepath.IsAbs(c.Policy.State):
		return fmt.Errorf("cluster-policy: bad state directory %q: write an absolute path", c.Policy.State)
	case c.Announce.Rate < 1 || c.Announce.Burst < 1 || c.Announce.Count < 1 || c.Announce.Interval <= 0 || c.Announce.Refresh <= 0 || c.Announce.Defend <= 0:
		return errors.New("announce: numbers and times must be more than nothing")
	}
	if c.Etcd != nil {
		if err := c.Etcd.check(); err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
	}
	for name, k := range c.Checks {
		if err := k.check(); err != nil {
			return fmt.Errorf("checks: %s: %w", name, err)
		}
	}
	seen := map[netip.Addr]bool{}
	for _, e := range c.Entries {
		list, err := c.expand(e)
		if err != nil {
			return fmt.Errorf("addresses: %w", err)
		}
		for _, a := range list {
			if seen[a.Addr] {
				return fmt.Errorf("addresses: %v stands there twice", a.Addr)
			}
			seen[a.Addr] = true
		}
		if c.Addresses = append(c.Addresses, list...); len(c.Addresses) > maxAddresses {
			return fmt.Errorf("addresses: more than %d", maxAddresses)
		}
	}
	return nil
}

// NodeName says whether a node can have this name: one that is printed as it is, and is one part of a key.
func NodeName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' })
}

func (e *Etcd) check() error {
	if len(e.Endpoints) == 0 {
		return errors.New("no endpoints: write `endpoints: [\"https://192.0.2.1:2379\"]`")
	}
	for _, at := range e.Endpoints {
		if !strings.HasPrefix(at, "http://") && !strings.HasPrefix(at, "https://") {
			return fmt.Errorf("bad endpoint %q: write https://HOST:PORT, or http:// without TLS", at)
		}
	}
	if (e.Cert == "") != (e.Key == "") {
		return errors.New("cert and key belong together")
	}
	if (e.User == "") != (e.PasswordFile == "") {
		return errors.New("user and password-file belong together")
	}
	return nil
}

func (k *Check) check() error {
	n := 0
	for _, has := range []bool{len(k.Exec) > 0, k.TCP != "", k.HTTP != ""} {
		if has {
			n++
		}
	}
	switch {
	case n != 1:
		return errors.New("write one of exec, tcp and http")
	case k.Interval <= 0 || k.Timeout <= 0 || k.Fall < 1 || k.Rise < 1:
		return errors.New("numbers and times must be more than nothing")
	}
	return nil
}

func (c *Config) expand(e AddressEntry) (list []Address, err error) {
	first, last, err := span(e.Address)
	if err != nil {
		return nil, err
	}
	or(&e.Interface, c.Interface)
	if e.Interface == "" {
		return nil, fmt.Errorf("%s has no interface: write `interface: NAME`, there or at the top", e.Address)
	}
	if _, there := c.Checks[e.Check]; e.Check != "" && !there {
		return nil, fmt.Errorf("%s: no check is named %q", e.Address, e.Check)
	}
	for a := first; ; a = a.Next() {
		list = append(list, Address{a, e.Interface, e.Prefer, e.Apart, e.Check})
		if a == last {
			return list, nil
		}
		if len(list) > maxAddresses {
			return nil, fmt.Errorf("%s: more than %d addresses", e.Address, maxAddresses)
		}
	}
}

// span is the first and the last address of an entry's text.
func span(text string) (first, last netip.Addr, err error) {
	bad := fmt.Errorf("bad address %q: write A.B.C.D, A.B.C.D/N or A.B.C.D-E.F.G.H", text)
	if from, to, is := strings.Cut(text, "-"); is {
		first, err = netip.ParseAddr(from)
		if err == nil {
			last, err = netip.ParseAddr(to)
		}
		if err != nil || last.Less(first) {
			return first, last, bad
		}
	} else if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
		b := p.Masked().Addr().As4()
		for i := p.Bits(); i < 32; i++ {
			b[i/8] |= 0x80 >> (i % 8)
		}
		first, last = p.Masked().Addr(), netip.AddrFrom4(b)
	} else if first, err = netip.ParseAddr(text); err != nil {
		return first, last, bad
	} else {
		last = first
	}
	if !first.Is4() || !last.Is4() {
		return first, last, fmt.Errorf("%w; ARP is IPv4's", bad)
	}
	if first.IsUnspecified() || last.IsMulticast() || first.IsLoopback() || last == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return first, last, fmt.Errorf("%q is no address that a machine can have", text)
	}
	return first, last, nil
}

// Interfaces are those of the addresses.
func (c *Config) Interfaces() (list []string) {
	for _, a := range c.Addresses {
		if !slices.Contains(list, a.Interface) {
			list = append(list, a.Interface)
		}
	}
	return list
}
