package kernel

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/bpffs"
	"github.com/postern-fw/postern/kernel/gate"
)

// TestRefused: each refusal names what is missing, and leaves what is in force.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	good := strings.ReplaceAll(vips, "HOOK", "gate")
	before := w.apply(good)
	manySets := "policy: p\nguard: [{interfaces: [near]}]\nsets:\n"
	for i := range 80 {
		manySets += "  s" + strings.Repeat("x", i) + ": {type: ipv4}\n"
	}
	for _, c := range []struct {
		name, policy string
		host         Host
		want         error
		words        string
	}{
		{"a policy that is wrong", "policy: p\nrulez: []\n", w.Host, nil, "test.yaml:2:1: error: unknown key"},
		{"a policy that guards nothing", "policy: p\n", w.Host, ErrNoGuard, "write `guard: "},
		{"a policy that is too large", manySets, w.Host, bpf.ErrTooLarge, "80 are sets"},
		{"no bpffs", good, Host{t.TempDir(), w.NetNS}, bpffs.ErrNone, "mount -t bpf bpf /sys/fs/bpf"},
	} {
		_, err := c.host.Apply(Source{"test.yaml", []byte(c.policy)}, ApplyOptions{})
		var wrong firewall.Diagnostics
		if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
		s, err := w.Status()
		must(t, err)
		if s.Generation != before.Generation || !s.Interfaces[0].Guarded {
			t.Errorf("after %s: %+v", c.name, s)
		}
	}
	w.expect("still in force", false, 1)
	if err := w.AddToSet("nobody", 0, []string{"192.0.2.1"}); !errors.Is(err, ErrNoSet) {
		t.Errorf("an unknown set: %v", err)
	}
	if err := w.AddToSet("vips", 0, []string{"192.0.2.7"}, []string{"192.0.2.300"}); err == nil || !strings.Contains(err.Error(), "192.0.2.300") {
		t.Errorf("a bad element: %v", err)
	}
	w.expect("nothing was added", false, 1)
	if err := w.Confirm(); !errors.Is(err, ErrNotPending) {
		t.Errorf("confirm: %v", err)
	}
}

// TestForeign: what bears our names and is not ours stays, and is named.
func TestForeign(t *testing.T) {
	w := newWorld(t)
	if _, err := exec.LookPath("nft"); err != nil {
		cannot(t, "needs nft")
	}
	nft := func(args string) string {
		var out []byte
		must(t, w.Do(0, func() (err error) {
			out, err = exec.Command("nft", strings.Fields(args)...).CombinedOutput()
			return err
		}))
		return string(out)
	}
	nft("add table netdev postern")
	nft("add table netdev other")
	policy := strings.ReplaceAll(vips, "HOOK", "gate")
	_, err := w.Apply(Source{"test.yaml", []byte(policy)}, ApplyOptions{})
	if !errors.Is(err, gate.ErrForeign) || !strings.Contains(err.Error(), "table netdev postern") {
		t.Errorf("a foreign table: %v", err)
	}
	if s, err := w.Status(); err != nil || s.Enforcing {
		t.Errorf("after a refusal: %+v %v", s, err)
	}
	nft("delete table netdev postern")
	must(t, w.Do(0, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = gateName
		return netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
	}))
	if _, err := w.Apply(Source{"test.yaml", []byte(policy)}, ApplyOptions{}); !errors.Is(err, gate.ErrForeign) {
		t.Errorf("a foreign device: %v", err)
	}
	must(t, w.Do(0, func() error { return netlink.LinkDel(&netlink.Ifb{LinkAttrs: netlink.LinkAttrs{Name: gateName}}) }))
	w.apply(policy)
	must(t, w.Flush())
	if got := nft("list tables"); strings.TrimSpace(got) != "table netdev other" {
		t.Errorf("left: %q", got)
	}
}

const asNobody = "POSTERN_TEST_NOBODY"

// TestNoRights runs itself without rights, and as root without CAP_BPF.
func TestNoRights(t *testing.T) {
	if root := os.Getenv(asNobody); root != "" {
		h := Host{Root: root}
		_, err := h.Apply(Source{"test.yaml", []byte(strings.ReplaceAll(vips, "HOOK", "gate"))}, ApplyOptions{})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "CAP_BPF") {
			t.Errorf("apply: %v", err)
		}
		checks := h.Doctor().Checks
		if len(checks) < 5 {
			t.Errorf("doctor: %+v", checks)
		}
		return
	}
	w := newWorld(t)
	w.apply(strings.ReplaceAll(vips, "HOOK", "gate"))
	if _, err := exec.LookPath("setpriv"); err != nil {
		cannot(t, "needs setpriv (util-linux)")
	}
	test := filepath.Join(t.TempDir(), "test")
	self, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(test, self, 0o755))
	must(t, os.Chmod(filepath.Dir(test), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(test)), 0o755))
	for name, args := range map[string][]string{
		"nobody":               {"--reuid=65534", "--regid=65534", "--clear-groups"},
		"root without CAP_BPF": {"--bounding-set=-bpf,-sys_admin,-perfmon"},
	} {
		cmd := exec.Command("setpriv", append(args, test, "-test.run", "^TestNoRights$", "-test.v")...)
		cmd.Env = append(os.Environ(), asNobody+"="+w.Root, "CI=")
		var out []byte
		must(t, w.Do(0, func() error { out, _ = cmd.CombinedOutput(); return nil }))
		if !strings.Contains(string(out), "PASS") || cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("%s:\n%s", name, out)
		}
	}
	w.expect("still in force", false, 1)
}
