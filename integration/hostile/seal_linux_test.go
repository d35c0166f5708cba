package hostile

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel/seal"
)

// TestSealed: in a sealed cgroup trafgen does without PACKET_QDISC_BYPASS. So it hears
// what became of its frames, and each honest one gets out once.
func TestSealed(t *testing.T) {
	t.Parallel()
	sealed := cgroup(t)
	for _, u := range []use{
		{name: "trafgen by TX_RING", run: trafgen(sealed, "--num", "1000")},
		{name: "trafgen by sendto", run: trafgen(sealed, "--num", "100", "--gap", "10us")},
	} {
		u.policy = "seal: /" + filepath.Base(sealed) + "\n" + example(t, "node-agent.yaml", "[eth0]", "packet-sockets")
		u.forged = []forgery{{"arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}}
		u.honest = []string{"arp.dst.proto_ipv4 == 192.0.2.9"}
		t.Run(u.name, u.try)
	}
}

// cgroup makes one for the test, below the root.
func cgroup(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root to make a cgroup")
	}
	if err := seal.Probe(); err != nil {
		labtest.Cannot(t, "needs a kernel with cgroup/setsockopt: "+err.Error())
	}
	tree := t.TempDir()
	if err := unix.Mount("none", tree, "cgroup2", 0, ""); err != nil {
		labtest.Cannot(t, "needs a kernel with cgroup v2: "+err.Error())
	}
	t.Cleanup(func() { must(t, unix.Unmount(tree, unix.MNT_DETACH)) })
	dir, err := os.MkdirTemp(tree, fmt.Sprintf("postern-test-%d-", os.Getpid()))
	must(t, err)
	t.Cleanup(func() { must(t, os.Remove(dir)) })
	return dir
}
