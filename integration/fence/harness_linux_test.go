package fence

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// thorough is what `make fence` asks for: so many failovers, every fault ten times beside keepalived, and the
// bounds of time as they are promised. The short form, which is part of go test, shares the machine with
// other tests, so each bound has slack there.
var thorough, _ = strconv.Atoi(os.Getenv("POSTERN_FAILOVERS"))

func slack() time.Duration {
	if thorough > 0 {
		return 0
	}
	return 5 * time.Second
}

// programs builds postern and etcd, once. Where the race detector looks at the tests it looks at the agents, too.
var programs = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "postern-fence-"); err != nil {
		return "", err
	}
	built = dir
	var flags []string
	if raceEnabled {
		flags = []string{"-race"}
		os.Setenv("GORACE", "atexit_sleep_ms=0 log_path="+filepath.Join(dir, races))
	}
	if err := build("../../cmd/postern", filepath.Join(dir, "postern"), flags...); err != nil {
		return dir, err
	}
	return dir, BuildEtcd("../etcd", filepath.Join(dir, "etcd"))
})

var built string

// races is how the files begin in which agents tell of data races.
const races = "race"

// stepped names, in a shim's environment, the file that says by how many seconds the host's clock is off.
const stepped = "POSTERN_TEST_CLOCK"

// TestMain runs the tests side by side, each with a site of its own: they wait more than they compute.
func TestMain(m *testing.M) {
	if file := os.Getenv(stepped); file != "" {
		os.Exit(shim(file, os.Args[1:]))
	}
	flag.Parse()
	if thorough == 0 {
		_ = flag.Set("test.parallel", "5")
	}
	code := m.Run()
	if built != "" {
		if found, _ := filepath.Glob(filepath.Join(built, races+".*")); len(found) > 0 {
			said, _ := os.ReadFile(found[0])
			fmt.Printf("%d agents had data races; the first:\n%s", len(found), said)
			code = 1
		}
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// parallel has a test of the short form run beside others. The long form measures.
func parallel(t *testing.T) {
	if thorough == 0 {
		t.Parallel()
	}
}

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
