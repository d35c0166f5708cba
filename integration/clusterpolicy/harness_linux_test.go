package clusterpolicy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/cluster/policy"
	"github.com/postern-fw/postern/integration/fence"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel/gate"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// programs builds postern and etcd, once, if a test can run.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-clusterpolicy-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "postern"), "../../cmd/postern")
	if said, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, said)
	}
	return dir, fence.BuildEtcd("../etcd", filepath.Join(dir, "etcd"))
})

var built bool

func TestMain(m *testing.M) {
	code := m.Run()
	if built {
		if dir, _ := programs(); dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// site is one of package fence's, whose nodes take the cluster's policy.
type site struct {
	*fence.Site
	t      testing.TB
	config string
}

const (
	vip = "10.8.1.1"
	// trial leaves a busy machine time.
	trial = "4s"
)

// addresses is a configuration with one address.
const addresses = "announce: {count: 3, interval: 300ms, refresh: 500ms, probe-interval: 50ms}\naddresses:\n  - {address: " + vip + "}\n"

func newSite(t testing.TB, nodes int, config string) *site {
	t.Helper()
	if raceEnabled {
		t.Skip("the agents are processes of their own, which the race detector does not see")
	}
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for network namespaces and eBPF")
	}
	if err := gate.Probe(0); err != nil {
		labtest.Cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		labtest.Cannot(t, "needs unshare (util-linux)")
	}
	built = true
	dir, err := programs()
	must(t, err)
	f, err := fence.New(fence.Options{Postern: filepath.Join(dir, "postern"), Etcd: filepath.Join(dir, "etcd"), Nodes: nodes, Members: 1})
	must(t, err)
	t.Cleanup(f.Close)
	s := &site{f, t, config}
	t.Cleanup(func() {
		for _, n := range s.Nodes {
			if n.Agent != nil && t.Failed() {
				t.Logf("%s said:\n%s", n.Name, n.Agent.Said())
			}
		}
	})
	for _, n := range s.Nodes {
		must(t, n.Configure(s.clusterPolicy(n)+config))
	}
	return s
}

func (s *site) clusterPolicy(n *fence.Node) string {
	return fmt.Sprintf("cluster-policy: {state: %s, trial: %s}\n", s.state(n), trial)
}

func (s *site) state(n *fence.Node) string { return filepath.Join(s.Dir, n.Name+"-state") }

// start starts agents and waits until they take part.
func (s *site) start(nodes ...*fence.Node) {
	s.t.Helper()
	for _, n := range nodes {
		must(s.t, n.Start())
	}
	for _, n := range nodes {
		s.eventually(n.Name+" takes part", func() bool { return s.status().node(n.Name).Present })
	}
}

func (s *site) eventually(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never happened: %s", what)
		}
	}
}

// status is what `postern cluster status --json` says.
type status struct {
	Rollout *policy.Rollout `json:"rollout"`
	Nodes   []nodeStatus    `json:"nodes"`
	Faults  []string        `json:"faults"`
}

type nodeStatus struct {
	Node    string `json:"node"`
	Present bool   `json:"present"`
	policy.Report
}

func (s status) node(name string) (n nodeStatus) {
	for _, x := range s.Nodes {
		if x.Node == name {
			n = x
		}
	}
	return n
}

// cluster runs postern cluster in the hub, where etcd is reached.
func (s *site) cluster(args ...string) (code int, out, errs string) {
	s.t.Helper()
	config := filepath.Join(s.Dir, "operator.yaml")
	must(s.t, os.WriteFile(config, []byte("node: operator\ninterface: eth0\netcd: {endpoints: ["+strings.Join(s.Endpoints(), ", ")+"]}\ncluster-policy: {}\n"+s.config), 0o600))
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(s.Postern, append([]string{"cluster", "--config", config}, args...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	must(s.t, s.Hub.Do(cmd.Start))
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

func (s *site) status() (out status) {
	s.t.Helper()
	_, said, errs := s.cluster("status", "--json")
	if err := json.Unmarshal([]byte(said), &out); err != nil {
		s.t.Fatalf("status: %v: %s%s", err, said, errs)
	}
	return out
}

// file writes a policy.
func (s *site) file(text string) string {
	s.t.Helper()
	f, err := os.CreateTemp(s.Dir, "policy-*.yaml")
	must(s.t, err)
	defer f.Close()
	_, err = f.WriteString(text)
	must(s.t, err)
	return f.Name()
}

// put puts a policy and waits for the outcome.
func (s *site) put(want int, text string, args ...string) (said string) {
	s.t.Helper()
	code, out, errs := s.cluster(append([]string{"put", s.file(text), "--wait"}, args...)...)
	if code != want {
		s.t.Fatalf("put: exit code %d, want %d: %s%s", code, want, out, errs)
	}
	return out + errs
}

// ask does something in etcd.
func (s *site) ask(fn func(context.Context, *clientv3.Client) error) {
	s.t.Helper()
	must(s.t, s.Ask(fn))
}

// blocking is a policy that lets all out but ARP for one address.
func blocking(name, address string) string {
	return fmt.Sprintf("policy: %s\nguard: [{interfaces: [eth0], senders: all}]\nsets: {blocked: {type: ipv4}}\nrules:\n"+
		"  - {name: no-%s, match: arp.src.proto_ipv4 == %s, verdict: drop}\n"+
		"  - {name: no-blocked, match: arp.src.proto_ipv4 in @blocked, verdict: drop}\ndefault: accept\n", name, name, address)
}

// marker is an address for which every policy here lets ARP out.
const marker = "10.8.9.250"

// gets says whether an ARP reply for an address gets out of a node. What is sent after it does.
func (s *site) gets(n *fence.Node, address string) bool {
	s.t.Helper()
	seen := len(s.Observer.Seen(0))
	must(s.t, n.NS.Do(func() error { return send(address, marker) }))
	var got bool
	s.eventually("a frame of "+n.Name+" arrives that every policy lets out", func() bool {
		arrived := false
		for _, f := range s.Observer.Seen(seen) {
			got = got || f.Port == n.Port.Index && f.Sender == netip.MustParseAddr(address)
			arrived = arrived || f.Port == n.Port.Index && f.Sender == netip.MustParseAddr(marker)
		}
		return arrived
	})
	return got
}

// send sends ARP replies for addresses out of eth0 of the calling thread's namespace.
func send(addresses ...string) error {
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ARP, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	for _, a := range addresses {
		ip := netip.MustParseAddr(a).AsSlice()
		frame := append(append(append([]byte{}, broadcast...), ifi.HardwareAddr...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
		frame = append(append(append(append(frame, ifi.HardwareAddr...), ip...), broadcast...), ip...)
		// Where it is refused the sender may hear so.
		_, _ = c.WriteTo(append(frame, make([]byte, 18)...), &packet.Addr{HardwareAddr: broadcast})
	}
	return nil
}

// only fails unless just some nodes let ARP for an address out.
func (s *site) only(address string, blocked ...string) {
	s.t.Helper()
	for _, n := range s.Nodes {
		want := true
		for _, b := range blocked {
			want = want && b != n.Name
		}
		if got := s.gets(n, address); got != want {
			s.t.Errorf("%s: ARP for %s gets out: %t, want %t", n.Name, address, got, want)
		}
	}
}
