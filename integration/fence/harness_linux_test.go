//go:build fence

package fence

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel/gate"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// programs builds postern and etcd, once.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "postern-fence-")
	if err != nil {
		return "", err
	}
	if err := build("../../cmd/postern", filepath.Join(dir, "postern"), "."); err != nil {
		return dir, err
	}
	return dir, BuildEtcd("../etcd", filepath.Join(dir, "etcd"))
})

func TestMain(m *testing.M) {
	code := m.Run()
	if built {
		if dir, _ := programs(); dir != "" {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

var built bool

func options(t testing.TB) Options {
	t.Helper()
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
	return Options{Postern: filepath.Join(dir, "postern"), Etcd: filepath.Join(dir, "etcd"), Nodes: 3, Members: 3}
}

// newSite makes a site; what its agents said is told if the test fails.
func newSite(t testing.TB, o Options) *Site {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, n := range s.Nodes {
			if n.Agent != nil {
				t.Logf("%s said:\n%s", n.Name, n.Agent.Said())
			}
		}
	})
	return s
}

// quick is a configuration whose addresses are announced at once and often.
func quick(addresses ...string) string {
	var b strings.Builder
	b.WriteString("announce: {count: 3, interval: 300ms, refresh: 500ms, probe-interval: 50ms}\naddresses:\n")
	for _, a := range addresses {
		fmt.Fprintf(&b, "  - {address: %s}\n", a)
	}
	return b.String()
}

func eventually(t testing.TB, within time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// speaker is who spoke last for an address since instant at; "" is nobody.
func (s *Site) speaker(a netip.Addr, at int64) (name string) {
	for _, f := range s.Observer.Since(at) {
		if f.Sender == a {
			name = s.NodeOf(f.Port)
		}
	}
	return name
}

func (s *Site) history(t testing.TB) map[netip.Addr][]string {
	t.Helper()
	h, err := s.History()
	must(t, err)
	return h
}
