package cluster

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestConfig(t *testing.T) {
	const least = "node: n1\ninterface: eth0\naddresses: [{address: 192.0.2.10}]\n"
	for _, c := range []struct{ name, text, want string }{
		{"least", least, ""},
		{"empty", "", "no addresses"},
		{"no mapping", "- a", "cannot unmarshal"},
		{"unknown key", least + "leese: 3s\n", "field leese not found"},
		{"a name that is a path", "node: a/b\n" + least[9:], "bad node name"},
		{"a name that moves the cursor", "node: \"n\\e[2J\"\n" + least[9:], "bad node name"},
		{"short lease", least + "lease: 1s\n", "bad lease 1s"},
		{"broken seconds", least + "lease: 2500ms\n", "bad lease 2.5s"},
		{"no margin left", least + "margin: 2s\n", "bad margin 2s"},
		{"negative margin", least + "margin: -1s\n", "bad margin -1s"},
		{"no interface", "node: n1\naddresses: [{address: 192.0.2.10}]\n", "has no interface"},
		{"own interface", "node: n1\naddresses: [{address: 192.0.2.10, interface: eth1}]\n", ""},
		{"bad address", "interface: eth0\naddresses: [{address: 192.0.2.300}]\n", "bad address"},
		{"backwards", "interface: eth0\naddresses: [{address: 192.0.2.9-192.0.2.1}]\n", "bad address"},
		{"IPv6", "interface: eth0\naddresses: [{address: \"2001:db8::/64\"}]\n", "bad address"},
		{"multicast", "interface: eth0\naddresses: [{address: 224.0.0.1}]\n", "no address that a machine can have"},
		{"too many", "interface: eth0\naddresses: [{address: 10.0.0.0/8}]\n", "more than 10000"},
		{"twice", "interface: eth0\naddresses: [{address: 10.0.0.0/30}, {address: 10.0.0.3}]\n", "10.0.0.3 stands there twice"},
		{"no endpoints", least + "etcd: {}\n", "no endpoints"},
		{"endpoint without a scheme", least + "etcd: {endpoints: [\"127.0.0.1:2379\"]}\n", "bad endpoint"},
		{"cert without key", least + "etcd: {endpoints: [\"https://a:1\"], cert: x}\n", "belong together"},
		{"user without password", least + "etcd: {endpoints: [\"https://a:1\"], user: x}\n", "belong together"},
		{"no such check", "interface: eth0\naddresses: [{address: 10.0.0.1, check: web}]\n", `no check is named "web"`},
		{"the cluster's policy alone", "etcd: {endpoints: [\"http://a:1\"]}\ncluster-policy: {}\n", ""},
		{"the cluster's policy without a cluster", least + "cluster-policy: {}\n", "it is kept in etcd"},
		{"two policies", least + "etcd: {endpoints: [\"http://a:1\"]}\ncluster-policy: {}\nfence: {policy: x}\n", "leave out one of them"},
		{"no time for a trial", least + "etcd: {endpoints: [\"http://a:1\"]}\ncluster-policy: {trial: 1ms}\n", "bad trial 1ms"},
		{"a state directory somewhere", least + "etcd: {endpoints: [\"http://a:1\"]}\ncluster-policy: {state: x}\n", "bad state directory"},
		{"a check of nothing", least + "checks: {web: {}}\n", "checks: web: write one of"},
		{"a check of two things", least + "checks: {web: {tcp: \"a:1\", http: \"http://a\"}}\n", "write one of"},
	} {
		_, err := ParseConfig("agent.yaml", []byte(c.text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "agent.yaml: ")) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := ParseConfig("agent.yaml", []byte("interface: eth0\netcd: {endpoints: [\"http://a:1\"], prefix: /x}\naddresses: [{address: 192.0.2.8/30}, {address: 192.0.2.20-192.0.2.22, apart: dns}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Node == "" || c.Lease != 3*time.Second || c.Margin != 300*time.Millisecond || c.Etcd.Prefix != "/x/" || !*c.OnInterface || !*c.Announce.Probe {
		t.Errorf("%+v", c)
	}
	var list []string
	for _, a := range c.Addresses {
		list = append(list, a.String()+a.Apart)
	}
	if got := strings.Join(list, " "); got != "192.0.2.8 192.0.2.9 192.0.2.10 192.0.2.11 192.0.2.20dns 192.0.2.21dns 192.0.2.22dns" {
		t.Error(got)
	}
}

func TestExample(t *testing.T) {
	b, err := os.ReadFile("../examples/agent/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseConfig("agent.yaml", b); err != nil {
		t.Error(err)
	}
}
