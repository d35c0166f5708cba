package fence

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/arp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/kernel"
)

// says waits until an agent has said something.
func (n *Node) says(t testing.TB, what string) {
	t.Helper()
	eventually(t, 15*time.Second, n.Name+" says "+what, func() bool { return strings.Contains(n.Agent.Said(), what) })
}

// silent fails if the node speaks for a virtual address since an instant.
func (n *Node) silent(t testing.TB, since int64) {
	t.Helper()
	if k := n.site.spoken(n, since); k > 0 {
		t.Errorf("%s sent %d frames for virtual addresses", n.Name, k)
	}
}

// TestRefused: what is wrong is told, and nothing is sent.
func TestRefused(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 2, 1, quick("10.8.1.1")
	s := newSite(t, o)
	n, other := s.Nodes[0], s.Nodes[1]
	for _, c := range []struct {
		name, config, says string
		code               int // 0: it goes on trying
	}{
		{"no etcd there", "etcd: {endpoints: [\"http://10.9.0.101:1\"]}\n" + quick("10.8.1.1"), "connection refused", 0},
		{"no etcd, but something else", "etcd: {endpoints: [\"http://10.9.0.101:2380\"]}\n" + quick("10.8.1.1"), "no etcd server answers", 0},
		{"TLS where there is none", "etcd: {endpoints: [\"https://10.9.0.101:2379\"]}\n" + quick("10.8.1.1"), "TLS: ", 0},
		{"expired certificate", "etcd: {endpoints: [\"https://10.9.0.101:2379\"], cert: " + certificate(t, s.Dir) + ", key: " + join(s.Dir, "key.pem") + "}\n" + quick("10.8.1.1"), "has expired on 2020-01-02", 1},
		{"no such interface", "etcd: {endpoints: [\"http://10.9.0.101:2379\"]}\ninterface: eth9\n" + quick("10.8.1.1"), "interface eth9: ", 3},
		{"misspelt key", "etdc: {}\n" + quick("10.8.1.1"), "field etdc not found", 1},
		{"no address", "etcd: {endpoints: [\"http://10.9.0.101:2379\"]}\n", "write `addresses:", 1},
		{"not IPv4", quick("2001:db8::1"), "ARP is IPv4's", 1},
		{"twice", quick("10.8.1.1", "10.8.1.0/30"), "10.8.1.1 stands there twice", 1},
		{"policy without the set", "fence: {policy: " + policy(t, s.Dir, "policy: p\nguard: [{interfaces: [eth0], senders: all}]\ndefault: accept\n") + "}\n" + quick("10.8.1.1"), `it has no set "vips"`, 1},
		{"policy that lets the kernel's own ARP pass", "fence: {policy: " + policy(t, s.Dir, "policy: p\nguard: [{interfaces: [eth0]}]\nsets: {vips: {type: ipv4}}\ndefault: accept\n") + "}\n" + quick("10.8.1.1"), "must be `senders: all`", 1},
		{"policy that the kernel engine cannot express", "fence: {policy: " + policy(t, s.Dir, manySets()) + "}\n" + quick("10.8.1.1"), "sets", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := cluster.BootTime()
			config := c.config
			if !strings.Contains(config, "interface: ") {
				config = "interface: eth0\n" + config
			}
			must(t, os.WriteFile(n.Config, []byte("node: n1\n"+config), 0o600))
			must(t, n.Start())
			defer n.Agent.Kill()
			n.says(t, c.says)
			if c.code != 0 {
				if code := n.Agent.Wait(); code != c.code {
					t.Errorf("exit code %d, want %d", code, c.code)
				}
			}
			n.silent(t, began)
		})
	}
	must(t, n.Configure(o.Config))

	t.Run("a time namespace with another boottime", func(t *testing.T) {
		p, err := start(n.NS, join(t.TempDir(), "log"), "unshare", "--time", "--boottime", "1000", "--fork", s.Postern, "agent", "--config", n.Config)
		must(t, err)
		if code := p.Wait(); code != 3 || !strings.Contains(p.Said(), "time namespace whose boottime is off by 1000.0 s") {
			t.Errorf("%d: %s", code, p.Said())
		}
	})
	t.Run("two agents with one name", func(t *testing.T) {
		must(t, n.Start())
		n.says(t, "holding addresses")
		must(t, os.WriteFile(other.Config, []byte("node: n1\ninterface: eth0\netcd: {endpoints: [\"http://10.9.0.101:2379\"]}\n"+o.Config), 0o600))
		began := cluster.BootTime()
		must(t, other.Start())
		other.says(t, "another agent has this node's name: n1")
		if code := other.Agent.Wait(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		other.silent(t, began)
		if code, said, err := n.Postern("vips"); err != nil || code != 0 {
			t.Errorf("the first one: %d %s %v", code, said, err)
		}
		n.Agent.Kill()
		must(t, other.Configure(o.Config))
	})
	t.Run("a second agent in one namespace", func(t *testing.T) {
		must(t, n.Start())
		n.says(t, "holding addresses")
		// From another mount namespace, with another /run.
		elsewhere := *n
		elsewhere.run = t.TempDir()
		code, said, err := elsewhere.Postern("agent", "--config", n.Config)
		if err != nil || code != 3 || !strings.Contains(said, "is the agent of this network namespace already") {
			t.Errorf("%d %s %v", code, said, err)
		}
		n.Agent.Kill()
	})
}

// TestMalformed: whatever stands below the prefix, it is told, and the address is not announced.
func TestMalformed(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 1, 1, quick("10.8.1.1-10.8.1.4")
	s := newSite(t, o)
	vips := addresses(4)
	put := func(key, value string) {
		must(t, s.Ask(func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Put(ctx, "/postern/"+key, value)
			return err
		}))
	}
	put("vips/10.8.1.1", "{")
	put("vips/10.8.1.2", `{"node": "n1"}`) // under no lease
	put("vips/10.8.1.3", strings.Repeat("[", 100000))
	put("vips/010.8.1.4", `{"node": "n9"}`) // no address
	put("vips/", "\x00\xff")
	put("nodes/evil", `{"addresses": ["10.8.1.4", "x"]}`)
	put("nodes/n1/../n1", `{"instance": 7}`)
	n := s.Nodes[0]
	must(t, n.Start())
	n.says(t, "holding addresses")
	for _, a := range vips[:3] {
		n.says(t, "address="+a.String())
	}
	eventually(t, 5*time.Second, "the sound one is announced", func() bool { return s.speaker(vips[3], 0) == "n1" })
	for _, a := range vips[:3] {
		if s.speaker(a, 0) != "" {
			t.Errorf("%v is announced", a)
		}
	}
	// One that is held: whoever overwrites or removes its key takes it from its holder, and nobody
	// speaks until the holder's door is surely shut.
	put("vips/10.8.1.4", `{"node": "n1"}`)
	n.says(t, "is under no lease")
	eventually(t, 5*time.Second, "the node is silent", func() bool { st := n.control(t, "/vips"); return st != nil && !st.Addresses[3].Open })
	silent := cluster.BootTime()
	must(t, s.Ask(func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Delete(ctx, "/postern/vips/10.8.1.4")
		return err
	}))
	n.says(t, "it is left alone for a lease time")
	eventually(t, 10*time.Second, "it is announced again", func() bool { return s.speaker(vips[3], silent) == "n1" })
	for _, f := range s.Observer.Seen(0) {
		if f.Sender == vips[3] && f.At > silent {
			if d := time.Duration(f.At - silent); d < 2500*time.Millisecond {
				t.Errorf("announced %v after its key was removed", d)
			}
			break
		}
	}
}

// TestInUse: an address that another machine on the segment uses is not announced; and one that
// another begins to use is defended.
func TestInUse(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 2, 1, quick("10.8.1.1", "10.8.1.2")
	s := newSite(t, o)
	vips := addresses(2)
	n, stranger := s.Nodes[0], s.Nodes[1]
	must(t, stranger.address(vips[0]))
	must(t, n.Start())
	n.says(t, "it is in use: the address is in use: ")
	eventually(t, 5*time.Second, "the other one is announced", func() bool { return s.speaker(vips[1], 0) == "n1" })
	for _, f := range s.Observer.Seen(0) {
		if f.Sender == vips[0] && f.Port == n.Port.Index {
			t.Fatal("the address in use is announced")
		}
	}
	if has, err := n.Has(vips[0]); err != nil || has {
		t.Errorf("the address in use is on the interface: %t, %v", has, err)
	}
	if code, said, err := n.Postern("vips"); err != nil || code != 1 || !strings.Contains(said, "not here: the address is in use") {
		t.Errorf("vips: %d %s %v", code, said, err)
	}
	// Now a stranger announces the other one.
	must(t, stranger.NS.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		c, err := arp.Dial(ifi)
		if err != nil {
			return err
		}
		defer c.Close()
		p, err := arp.NewPacket(arp.OperationReply, ifi.HardwareAddr, vips[1], net.HardwareAddr{255, 255, 255, 255, 255, 255}, vips[1])
		if err != nil {
			return err
		}
		return c.WriteTo(p, net.HardwareAddr{255, 255, 255, 255, 255, 255})
	}))
	struck := cluster.BootTime()
	n.says(t, "another machine announces an address of ours")
	eventually(t, 5*time.Second, "it is defended", func() bool {
		for _, f := range s.Observer.Seen(0) {
			if f.Sender == vips[1] && f.At > struck && f.Port == n.Port.Index {
				return true
			}
		}
		return false
	})
}

// manySets is a policy with more sets than the kernel engine takes.
func manySets() string {
	sets, rules := "", ""
	for i := range 80 {
		sets += fmt.Sprintf(", s%d: {type: ipv4}", i)
		rules += fmt.Sprintf("  - {name: r%d, match: arp.src.proto_ipv4 in @s%d, verdict: drop}\n", i, i)
	}
	return "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: ipv4}" + sets + "}\nrules:\n" + rules
}

func policy(t testing.TB, dir, text string) string {
	t.Helper()
	f, err := os.CreateTemp(dir, "policy-")
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(t, err)
	return f.Name()
}

// certificate makes one that has expired.
func certificate(t testing.TB, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "n1"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: private}} {
		must(t, os.WriteFile(join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return fmt.Sprintf("%q", join(dir, "cert.pem"))
}

// TestFenceTaken: where somebody takes the fence away, or puts another policy in its place, the node gives
// all to others.
func TestFenceTaken(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 2, 1, "announce: {refresh: 500ms, probe-interval: 50ms}\naddresses: [{address: 10.8.1.1, prefer: [n1]}]\n"
	s := newSite(t, o)
	vip, n := addresses(1)[0], s.Nodes[0]
	must(t, n.Start())
	must(t, s.Nodes[1].Start())
	for _, c := range []struct {
		name string
		take func() error
	}{
		{"flushed", func() error { return n.Host().Flush() }},
		{"another policy", func() error {
			_, err := n.Host().Apply(kernel.Source{Name: "other", Text: []byte("policy: other\nguard: [{interfaces: [eth0]}]\nsets: {vips: {type: ipv4}}\ndefault: accept\n")}, kernel.ApplyOptions{})
			return err
		}},
	} {
		eventually(t, 20*time.Second, "n1 announces", func() bool { return s.speaker(vip, cluster.BootTime()-int64(time.Second)) == "n1" })
		must(t, c.take())
		taken := cluster.BootTime()
		eventually(t, 10*time.Second, c.name+": n2 announces", func() bool { return s.speaker(vip, taken) == "n2" })
		n.says(t, "this node holds nothing")
		n.Agent.Kill()
		must(t, n.Start())
	}
}
