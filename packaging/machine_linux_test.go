package packaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// steps begin a machine's script: what each says goes to a file, with its exit code.
const steps = `
step() { name=$1; shift; "$@" >"/out/$name" 2>&1; echo "[$?]" >>"/out/$name"; }
until_() { for i in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; return 1; }
`

// machine is a container in which systemd is PID 1 and whose only interface is near.
type machine struct {
	t         testing.TB
	root, out string
}

// newMachine makes one that enables units of this directory, and at whose boot check.service runs a script when
// they and what they want is up. files are more, by their path.
func newMachine(t testing.TB, script string, files map[string]string, units ...string) *machine {
	t.Helper()
	m := &machine{t, t.TempDir(), t.TempDir()}
	for _, dir := range []string{"etc/systemd/system", "etc/systemd/system-preset", "etc/postern", "usr", "out", "proc", "sys", "dev", "run", "tmp", "var", "root"} {
		must(t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		must(t, os.Symlink("usr/"+link, filepath.Join(m.root, link)))
	}
	all := map[string]string{
		"etc/os-release": "ID=test\n",
		// Without it this were a first boot, which enables every service of the host's /usr.
		"etc/machine-id":                     strings.Repeat("1", 32) + "\n",
		"etc/systemd/system-preset/0.preset": "disable *\n",
		"etc/passwd":                         "root:x:0:0::/root:/bin/sh\n",
		"etc/group":                          "root:x:0:\n",
		"etc/systemd/system/check.service":   "[Unit]\nAfter=sysinit.target network-pre.target " + strings.Join(units, " ") + "\n[Service]\nType=oneshot\nExecStart=sh /etc/check\nTimeoutStartSec=50\n",
		"etc/systemd/system/check.target":    "[Unit]\nRequires=sysinit.target\nWants=check.service " + strings.Join(units, " ") + "\n",
		"etc/check":                          script + "touch /out/end\nsystemctl exit\n",
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		must(t, err)
		all["etc/systemd/system/"+unit] = string(text)
	}
	maps.Copy(all, files)
	for name, content := range all {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(m.root, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(m.root, name), []byte(content), 0o644))
	}
	enable := exec.Command(labtest.Tool(t, "systemctl", "systemd"), append([]string{"--root=" + m.root, "enable"}, units...)...)
	if out, err := enable.CombinedOutput(); err != nil {
		t.Fatalf("enable: %v\n%s", err, out)
	}
	return m
}

// name is the machine's, and of its cgroups.
func name(t testing.TB) string {
	return fmt.Sprintf("postern-test-%d-%s", os.Getpid(), strings.ToLower(t.Name()))
}

// said is what a step of the script said, and its exit code.
func (m *machine) said(step string) (out string, code int) {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.out, step))
	if err != nil {
		m.t.Errorf("step %s: %v", step, err)
		return "", -1
	}
	found := regexp.MustCompile(`(?s)^(.*)\[(\d+)\]\n$`).FindSubmatch(b)
	if found == nil {
		m.t.Errorf("step %s did not end: %s", step, b)
		return string(b), -1
	}
	code, _ = strconv.Atoi(string(found[2]))
	return string(found[1]), code
}

// step checks that one ended well and said what it should.
func (m *machine) step(name string, want ...string) string {
	m.t.Helper()
	out, code := m.said(name)
	if code != 0 {
		m.t.Errorf("step %s: exit code %d\n%s", name, code, out)
	}
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(out) {
			m.t.Errorf("step %s: no %q in\n%s", name, w, out)
		}
	}
	return out
}

// build makes a directory with the binary under bin.
func build(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(dir, "bin", "postern"), "../cmd/postern")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return dir
}

// boot lets systemd run in the container until the script is through. It gets a cgroup of
// its own below ours, since systemd takes what it finds for its own.
func (m *machine) boot(nspawn, bpffs string, netns int, usr string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	args := []string{"--quiet", "--register=no", "--keep-unit", "--machine=" + name(m.t),
		"--directory=" + m.root, "--overlay-ro=/usr:" + usr + ":/usr", "--bind=" + m.out + ":/out", "--bind=" + bpffs + ":/sys/fs/bpf",
		fmt.Sprintf("--network-namespace-path=/proc/%d/fd/%d", os.Getpid(), netns), "--capability=all", "--system-call-filter=bpf open_by_handle_at",
		"--console=pipe", "--boot", "--", "--unit=check.target", "--log-target=journal", "--show-status=no"}
	cgroups := newCgroups(m.t)
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", cgroups.enter() + `exec "$@"`, "sh", nspawn}, args...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes")
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Run(); err != nil {
		m.t.Errorf("the container: %v\n%s", err, console.String())
	}
	if _, err := os.Stat(filepath.Join(m.out, "end")); err != nil {
		m.t.Errorf("the container did not come to the end of its script: %v\n%s%s", err, m.steps(), console.String())
	}
}

// steps is what there is of the script's output.
func (m *machine) steps() (all string) {
	files, _ := filepath.Glob(filepath.Join(m.out, "*"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		all += filepath.Base(f) + ":\n" + string(b)
	}
	return all
}

// cgroups are directories of the hierarchies that systemd uses: v2, and name=systemd.
type cgroups []string

func newCgroups(t testing.TB) (list cgroups) {
	t.Helper()
	own, err := os.ReadFile("/proc/self/cgroup")
	must(t, err)
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(own)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 || part[1] != "" && part[1] != "name=systemd" {
			continue
		}
		for mount := range strings.Lines(string(mounts)) {
			f := strings.Fields(mount)
			if len(f) < 4 || part[1] == "" && f[2] != "cgroup2" || part[1] != "" && (f[2] != "cgroup" || !strings.Contains(f[3], part[1])) {
				continue
			}
			dir := filepath.Join(f[1], part[2], name(t))
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				labtest.Cannot(t, "needs a cgroup to delegate: "+err.Error())
			}
			t.Cleanup(func() { removeCgroups(dir) })
			list = append(list, dir)
			break
		}
	}
	return list
}

// enter is a shell script's beginning that moves the shell there.
func (c cgroups) enter() (script string) {
	for _, dir := range c {
		script += "echo $$ >" + dir + "/cgroup.procs && "
	}
	return script
}

// removeCgroups removes a cgroup and those below it, the innermost first.
func removeCgroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeCgroups(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}
