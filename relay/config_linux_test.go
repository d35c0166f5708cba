package relay

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/relay/binding"
)

const sound1 = "database: db\nservers: [192.0.2.53]\ninterfaces: [{names: [eth1]}]\n"

func TestParseConfig(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string
	}{
		{"sound", sound1, ""},
		{"empty", "", "it is empty"},
		{"unknown key", sound1 + "hop: 3\n", "relay.yaml:4:1: error: unknown key \"hop\"\n    hop: 3\n    ^^^\n    did you mean \"hops\"?"},
		{"unknown key of an interface", "database: db\nservers: [192.0.2.53]\ninterfaces: [{names: [eth1], wlan: 5}]\n", "relay.yaml:3:30: error: unknown key \"wlan\""},
		{"no number", sound1 + "hops: many\n", "relay.yaml:4:7: error: \"many\" is no int"},
		{"no YAML", sound1 + "hops: [\n", "did not find expected"},
		{"two sets", sound1 + "set: [ports, hosts]\n", ""},
		{"two findings", sound1 + "hops: 17\nmode: bridge\n", "    hops: 17\n          ^^\n    RFC 1542, 4.1.1"},
		{"static twice", sound1 + "static: [{mac: '02:00:00:00:00:01', ip: 10.1.0.5, interface: a}, {mac: '02:00:00:00:00:02', ip: 10.1.0.5, interface: a}]\n", "10.1.0.5 stands twice"},
		{"two documents", sound1 + "---\n" + sound1, "more than one document"},
		{"mode", sound1 + "mode: bridge\n", "neither relay nor snoop"},
		{"no database", "servers: [192.0.2.53]\ninterfaces: [{names: [eth1]}]\n", "name a file for the bindings"},
		{"no servers", "database: db\ninterfaces: [{names: [eth1]}]\n", "servers: eth1 has none"},
		{"snoop needs none", "mode: snoop\ndatabase: db\ninterfaces: [{names: [eth1]}]\n", ""},
		{"servers of an interface", "database: db\ninterfaces: [{names: [eth1], servers: [192.0.2.1]}]\n", ""},
		{"no interfaces", "database: db\nservers: [192.0.2.53]\n", "interfaces: name those"},
		{"no names", "database: db\nservers: [192.0.2.53]\ninterfaces: [{vlan: 5}]\n", "entry 1 has no names"},
		{"bad glob", "database: db\nservers: [192.0.2.53]\ninterfaces: [{names: ['[']}]\n", "bad name"},
		{"VLAN 4095", "database: db\nservers: [192.0.2.53]\ninterfaces: [{names: [eth1], vlan: 4095}]\n", "relay.yaml:3:36: error: interfaces: VLAN 4095"},
		{"server by name", "database: db\nservers: [dhcp.example]\n", `relay.yaml:2:11: error: "dhcp.example" is no IPv4 address`},
		{"hops 17", sound1 + "hops: 17\n", "hops: 17"},
		{"policy", sound1 + "option82: {policy: discard}\n", `"discard" is none of drop, keep, replace, append`},
		{"template", sound1 + "option82: {circuit-id: '{port}'}\n", "{port"},
		{"template that does not end", sound1 + "option82: {circuit-id: '{iface'}\n", "{iface"},
		{"a circuit ID by the client", sound1 + "option82: {circuit-id: '{client}'}\n", "{client"},
		{"a remote ID by the client", sound1 + "option82: {remote-id: '{client}'}\n", ""},
		{"no circuit ID", sound1 + "option82: {circuit-id: ''}\n", "without it no answer"},
		{"static", sound1 + "static: [{mac: '02:00:00:00:00:01', ip: 10.1.0.5}]\n", "10.1.0.5 needs mac, ip and interface"},
		{"static with a short hardware address", sound1 + "static: [{mac: '02:00', ip: 10.1.0.5, interface: eth1}]\n", "is no hardware address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseConfig("relay.yaml", []byte(tt.text))
			if tt.want == "" {
				if err != nil || c.Control == "" {
					t.Error(err)
				}
				return
			}
			var wrong firewall.Diagnostics
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "relay.yaml:") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestExamples: what people start from is sound, and so is the policy for what is sent to clients.
func TestExamples(t *testing.T) {
	names, err := filepath.Glob("../examples/relay/*.yaml")
	if err != nil || len(names) != 2 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseConfig(name, text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"drop", "keep", "replace", "append"} {
			c.Option82.Policy = p
			if _, err := c.guard(); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
	}
}

func TestEntries(t *testing.T) {
	c, err := ParseConfig("relay.yaml", []byte("database: db\nservers: [192.0.2.53]\ninterfaces:\n"+
		"  - {names: [veth7], address: 10.7.0.1}\n  - {names: ['veth*'], address: 10.1.0.1}\n  - {names: [eth1], vlan: 10, address: 10.10.0.1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		iface string
		vlan  uint16
		want  string
	}{{"veth7", 0, "10.7.0.1"}, {"veth8", 0, "10.1.0.1"}, {"eth1", 10, "10.10.0.1"}, {"eth1", 0, ""}, {"eth2", 0, ""}} {
		got := ""
		if n := c.entry(tt.iface, tt.vlan); n != nil {
			got = n.Address.String()
		}
		if got != tt.want {
			t.Errorf("%s, VLAN %d: %q, want %q", tt.iface, tt.vlan, got, tt.want)
		}
	}
}

func TestCircuit(t *testing.T) {
	c, err := ParseConfig("relay.yaml", []byte(sound1+"option82: {circuit-id: '{iface}/{vlan}/{index}', remote-id: '{mac} {address} {client}'}\n"))
	if err != nil {
		t.Fatal(err)
	}
	ifi := &net.Interface{Name: "eth1", Index: 7, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	circuit, err := c.newCircuit(ifi, &Interface{VLAN: 5, GIAddr: 9}, 0x0a010001)
	if err != nil {
		t.Fatal(err)
	}
	info := circuit.info(nil, binding.MAC{2, 0, 0, 0, 0, 0xab}, true, true)
	want := "\x01\x08eth1/5/7" + "\x02\x2c02:00:00:00:00:01 10.1.0.1 02:00:00:00:00:ab" + "\x05\x04\x0a\x01\x00\x01" + "\x0b\x04\x0a\x01\x00\x01" + "\x0a\x01\x80"
	if string(info) != want {
		t.Errorf("%q, want %q", info, want)
	}
	if _, err := c.newCircuit(ifi, &Interface{}, 0); err == nil {
		t.Error("an interface without an address has a circuit")
	}
	c.Option82.Circuit = strings.Repeat("x", 201)
	if _, err := c.newCircuit(ifi, &Interface{}, 1); err == nil {
		t.Error("a circuit ID of 201 bytes")
	}
}

// FuzzConfig: whatever a file holds, it is sound or it is told why not.
func FuzzConfig(f *testing.F) {
	f.Add(sound1)
	f.Add("mode: snoop\ndatabase: db\ninterfaces: [{names: ['veth*'], vlan: 5, clients: 3}]\nstatic: [{mac: '02:00:00:00:00:01', ip: 10.1.0.5, interface: a}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig("relay.yaml", []byte(text))
		var wrong firewall.Diagnostics
		if err != nil && !errors.As(err, &wrong) {
			t.Errorf("%v", err)
		}
		if err == nil && (len(c.Interfaces) == 0 || c.Database == "") {
			t.Errorf("%q is sound", text)
		}
	})
}

// TestFixed: what takes a restart is told by the key that somebody has changed, not by one that follows from it.
func TestFixed(t *testing.T) {
	parse := func(database string) *Config {
		c, err := ParseConfig("relay.yaml", []byte("database: "+database+"\nservers: [192.0.2.53]\ninterfaces: [{names: [eth1]}]\n"))
		must(t, err)
		return c
	}
	for range 50 {
		if err := parse("/a").fixed(parse("/b")); !errors.Is(err, ErrRestart) || !strings.HasPrefix(err.Error(), "another database ") {
			t.Fatal(err)
		}
	}
}
