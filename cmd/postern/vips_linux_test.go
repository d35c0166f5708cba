package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
)

// cookies is a machine of which nothing but its namespace's cookie is asked.
type cookies struct{ kernel.Host }

func (cookies) Cookie() (uint64, error) { return 7, nil }

func agentTerm(dir string) (t *term, out, errs *bytes.Buffer) {
	out, errs = &bytes.Buffer{}, &bytes.Buffer{}
	t = newTerm(strings.NewReader(""), out, errs)
	t.machine.host, t.machine.sockets = cookies{}, dir
	return t, out, errs
}

func someVips() *cluster.Status {
	left := 2700 * time.Millisecond
	a := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
	at := time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)
	return &cluster.Status{Node: "n1", Lease: &left, Nodes: []cluster.NodeStatus{{Node: "n1", Holds: 2}, {Node: "n2", Holds: 1, Drained: true}}, Addresses: []cluster.AddressStatus{
		{Address: a(1), Interface: "eth0", Node: "n1", Since: at, Remaining: left, Open: true},
		{Address: a(2), Interface: "eth0", Node: "n1", Since: at, Remaining: left},
		{Address: a(3), Interface: "eth0", Node: "n2", Since: at, Remaining: 2 * time.Second},
		{Address: a(4), Interface: "eth0", Unable: "check web: refused"},
	}}
}

func TestVips(t *testing.T) {
	dir := t.TempDir()
	term, _, errs := agentTerm(dir)
	if code := term.run(t.Context(), []string{"vips"}); code != exitNo || !strings.Contains(errs.String(), "no postern agent in this network namespace") {
		t.Errorf("without an agent: %d %s", code, errs)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /vips", func(w http.ResponseWriter, _ *http.Request) { control.Answer(w, 500, someVips(), nil) })
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		control.Answer(w, 500, nil, errors.New("the fence is stuck"))
	})
	server, err := control.ListenHandler(filepath.Join(dir, "agent-7.sock"), mux)
	must(t, err)
	defer server.Close()
	go func() { _ = server.Serve() }()

	term, out, _ := agentTerm(dir)
	if code := term.run(t.Context(), []string{"vips"}); code != exitNo {
		t.Errorf("one is held by nobody: %d", code)
	}
	for _, want := range [][]string{
		{"192.0.2.1", "eth0", "n1", "2.7s"}, {"192.0.2.2", "n1", "not announced"}, {"192.0.2.3", "n2", "2s"},
		{"192.0.2.4", "nobody", "not here: check web: refused"}, {"n2 holds 1, drained"},
	} {
		found := false
		for line := range strings.Lines(out.String()) {
			at := 0
			for _, w := range want {
				i := strings.Index(line[at:], w)
				if i < 0 {
					at = -1
					break
				}
				at += i
			}
			found = found || at >= 0
		}
		if !found {
			t.Errorf("no line with %q in\n%s", want, out)
		}
	}
	term, out, _ = agentTerm(dir)
	term.run(t.Context(), []string{"vips", "--json"})
	var s cluster.Status
	if err := json.Unmarshal(out.Bytes(), &s); err != nil || len(s.Addresses) != 4 || s.Addresses[0].Node != "n1" || *s.Lease != 2700*time.Millisecond {
		t.Errorf("%v: %s", err, out)
	}
	term, _, errs = agentTerm(dir)
	if code := term.run(t.Context(), []string{"agent", "drain"}); code != exitMachine || !strings.Contains(errs.String(), "the fence is stuck") {
		t.Errorf("drain: %d %s", code, errs)
	}
}

func TestAgentUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no configuration": {[]string{"agent", "--config", "/nonexistent"}, exitUsage, "no such file"},
		"wrong one":        {[]string{"agent", "--config", "testdata/../vips_linux.go"}, exitNo, "vips_linux.go: "},
		"an argument":      {[]string{"agent", "start"}, exitUsage, "unknown command"},
		"fence of nothing": {[]string{"agent", "fence", "--config", "/nonexistent"}, exitUsage, "no such file"},
	} {
		term, _, errs := agentTerm(t.TempDir())
		if code := term.run(t.Context(), c.args); code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%s: %d %s", name, code, errs)
		}
	}
}

// TestAgentFence: what puts the fence in force at boot leaves the policy of an agent that runs as it is.
func TestAgentFence(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for a network namespace of its own: the agent's name belongs to one")
	}
	runtime.LockOSThread() // the thread ends with the test, and the namespace with it
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	file := filepath.Join(t.TempDir(), "agent.yaml")
	must(t, os.WriteFile(file, []byte("node: n1\ninterface: eth0\naddresses: [{address: 192.0.2.1}]\n"), 0o600))
	f := newFake()
	fence := func() (code int, said string) {
		t.Helper()
		var out bytes.Buffer
		term := newTerm(strings.NewReader(""), &out, &out)
		f.around(t.TempDir())(term)
		code = term.run(t.Context(), []string{"agent", "fence", "--config", file})
		return code, out.String()
	}
	if code, said := fence(); code != 0 || f.applied != 1 {
		t.Fatalf("at boot: %d %s, %d policies", code, said, f.applied)
	}
	agent, err := onlyAgent()
	must(t, err)
	if code, said := fence(); code != 0 || f.applied != 1 || !strings.Contains(said, "nothing is changed") {
		t.Errorf("beside an agent: %d %s, %d policies", code, said, f.applied)
	}
	must(t, f.Flush())
	if code, said := fence(); code != exitMachine || f.applied != 1 || !strings.Contains(said, "start the agent anew") {
		t.Errorf("beside one whose policy is gone: %d %s, %d policies", code, said, f.applied)
	}
	must(t, agent.Close())
	if code, said := fence(); code != 0 || f.applied != 2 {
		t.Errorf("after it: %d %s, %d policies", code, said, f.applied)
	}
}

// TestAgentMetrics: an agent that is alone, and what is told of it.
func TestAgentMetrics(t *testing.T) {
	c, err := cluster.ParseConfig("agent.yaml", []byte("node: n1\ninterface: eth0\nannounce: {probe: false}\naddresses: [{address: 192.0.2.1}]\n"))
	must(t, err)
	a := cluster.New(cluster.Parts{Config: c, Election: cluster.NewStandalone("n1"), Door: mute{}, Voice: mute{}, Now: bootTime, Log: newLog(&bytes.Buffer{})})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	eventually(t, "the address is held", func() bool { s, err := a.Status(ctx); return err == nil && s.Addresses[0].Open })
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(agentCollector{a, nil})
	if err := testutil.GatherAndCompare(registry, strings.NewReader(`# HELP postern_vip_held 1 if this node lets an address be announced, else 0.
# TYPE postern_vip_held gauge
postern_vip_held{address="192.0.2.1",interface="eth0"} 1
# HELP postern_vips_opened_total Addresses that this node began to announce.
# TYPE postern_vips_opened_total counter
postern_vips_opened_total 1
`), "postern_vip_held", "postern_vips_opened_total"); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// mute is a door and a voice without effect.
type mute struct{}

func (mute) Open(int64, ...netip.Addr) error         { return nil }
func (mute) Shut(...netip.Addr) error                { return nil }
func (mute) Probe(context.Context, netip.Addr) error { return nil }
func (mute) Announce(netip.Addr)                     {}
func (mute) Silence(netip.Addr)                      {}
