package packaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

const unit = "postern.service"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What systemd makes of the sandbox, from 0 to 10, must not get worse.
func TestSandbox(t *testing.T) {
	analyze := labtest.Tool(t, "systemd-analyze", "systemd")
	out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", "--threshold=25", unit).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Overall exposure level for "+unit)) {
		t.Errorf("%v\n%s", err, out)
	}
}

const policy = `policy: packaged
guard: [{interfaces: [near]}]
hook: gate
seal: /
sets: {vips: {type: ipv4, elements: [192.0.2.10]}}
rules: [{name: own, match: arp.src.proto_ipv4 in @vips, verdict: accept}]
`

// script is what the machine in the container does when it has booted.
const script = `
step() { name=$1; shift; "$@" >"/out/$name" 2>&1; echo "[$?]" >>"/out/$name"; }
announce() { step "announced-$1" arping -A -c 1 -w 1 -I near -s "192.0.2.$1" "192.0.2.$1"; }
until_() { for i in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; return 1; }
main() { systemctl show -P MainPID postern; }


for last in 10 11 12; do ip addr add "192.0.2.$last/32" dev near; done # arping wants them
systemctl is-active postern || { step boot systemctl --no-pager status postern; step journal journalctl --no-pager -b; systemctl exit; exit; }
step entered systemctl show -P ActiveEnterTimestampMonotonic postern.service network-pre.target
step verify systemd-analyze verify postern.service
step properties systemctl show postern -p Type,ActiveState,WatchdogUSec,StatusText
step process cat "/proc/$(main)/status"
step status postern status
step doctor postern doctor
announce 10
announce 11
timeout 20 postern monitor -n 1 --json >/out/event 2>&1 &
step heard until_ sh -c '[ -s /out/event ] || { arping -q -A -c 1 -w 1 -I near -s 192.0.2.11 192.0.2.11; false; }'
wait

announce 12
sed -i s/192.0.2.10/192.0.2.12/ /etc/postern/policy.yaml
step reload systemctl reload postern
step reloaded until_ sh -c 'postern set list vips | grep -q 192.0.2.12'
announce 12
echo nonsense >/etc/postern/policy.yaml
step wrong systemctl reload postern
step refused until_ sh -c 'systemctl show -P StatusText postern | grep "was not put in force, the policy before stays as it is"'
step unharmed postern status
echo "$POLICY" | sed s/192.0.2.10/192.0.2.12/ >/etc/postern/policy.yaml

old=$(main)
kill -KILL "$old"
step restarted until_ sh -c "[ \"\$(systemctl show -P MainPID postern)\" != $old ] && systemctl is-active postern"
announce 11
step stop systemctl stop postern
step stopped postern status
announce 11
step journal journalctl --no-pager -o cat -u postern
step flush postern flush
announce 11
systemctl exit
`

// machine is a container in which systemd is PID 1 and whose only interface is near.
type machine struct {
	t         testing.TB
	root, out string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t, t.TempDir(), t.TempDir()}
	for _, dir := range []string{"etc/systemd/system", "etc/systemd/system-preset", "etc/postern", "usr", "out", "proc", "sys", "dev", "run", "tmp", "var", "root"} {
		must(t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		must(t, os.Symlink("usr/"+link, filepath.Join(m.root, link)))
	}
	text, err := os.ReadFile(unit)
	must(t, err)
	for name, content := range map[string]string{
		"etc/os-release": "ID=test\n",
		// Without it this were a first boot, which enables every service of the host's /usr.
		"etc/machine-id":                     strings.Repeat("1", 32) + "\n",
		"etc/systemd/system-preset/0.preset": "disable *\n",
		"etc/passwd":                         "root:x:0:0::/root:/bin/sh\n",
		"etc/group":                          "root:x:0:\n",
		"etc/postern/policy.yaml":            policy,
		"etc/systemd/system/" + unit:         string(text),
		"etc/systemd/system/check.service":   "[Unit]\nAfter=sysinit.target network-pre.target\n[Service]\nType=oneshot\nEnvironmentFile=/etc/policy\nExecStart=sh /etc/check\nTimeoutStartSec=50\n",
		"etc/systemd/system/check.target":    "[Unit]\nRequires=sysinit.target\nWants=check.service\n",
		"etc/policy":                         "POLICY=" + strconv.Quote(policy) + "\n",
		"etc/check":                          script,
	} {
		must(t, os.WriteFile(filepath.Join(m.root, name), []byte(content), 0o644))
	}
	enable := exec.Command(labtest.Tool(t, "systemctl", "systemd"), "--root="+m.root, "enable", unit)
	if out, err := enable.CombinedOutput(); err != nil {
		t.Fatalf("enable: %v\n%s", err, out)
	}
	return m
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

func TestService(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for a container")
	}
	nspawn := labtest.Tool(t, "systemd-nspawn", "systemd-container")
	labtest.Tool(t, "arping", "iputils-arping")
	pair, err := lab.New()
	must(t, err)
	defer pair.Close()
	bpffs, unmount, err := lab.BPFFS()
	must(t, err)
	defer unmount()
	far, err := pair.Receive(1)
	must(t, err)
	defer far.Close()
	m := newMachine(t)
	m.boot(nspawn, bpffs, int(pair.NS[0]), build(t))
	if t.Failed() {
		return
	}
	m.checkSandbox()
	m.checkSteps()
	arrived := announcements(t, far)
	// 11 was sent while the policy was in force, after run was killed, after the service
	// was stopped, and once when nothing was in force any more.
	for last, want := range map[byte]int{10: 1, 11: 1, 12: 1} {
		if arrived[last] != want {
			t.Errorf("%d announcements of 192.0.2.%d arrived, want %d", arrived[last], last, want)
		}
	}
}

func (m *machine) checkSandbox() {
	entered := strings.Fields(m.step("entered"))
	if len(entered) != 2 {
		m.t.Fatalf("entered: %v", entered)
	}
	service, _ := strconv.Atoi(entered[0])
	network, _ := strconv.Atoi(entered[1])
	if service == 0 || network == 0 || service > network {
		m.t.Errorf("in force at %d, the network began at %d", service, network)
	}
	for line := range strings.Lines(m.step("verify")) {
		// That is the type of newer versions, for which this one takes the one before.
		if !strings.Contains(line, "postern.service:") || !strings.Contains(line, "notify-reload") {
			m.t.Errorf("the unit: %s", line)
		}
	}
	m.step("properties", "Type=notify", "ActiveState=active", "WatchdogUSec=30s", "StatusText=packaged is in force: 1 of 1 interface guarded")
	// CAP_DAC_READ_SEARCH 2, CAP_NET_ADMIN 12, CAP_PERFMON 38, CAP_BPF 39.
	caps := fmt.Sprintf("%016x", 1<<2|1<<12|1<<38|1<<39)
	m.step("process", "NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t"+caps, "CapBnd:\t"+caps, "CapPrm:\t"+caps)
}

func (m *machine) checkSteps() {
	m.step("status", `near +egress +packet-sockets +\w+ +guarded`, `run +process \d+`, `/ +sealed`)
	m.step("heard")
	event, err := os.ReadFile(filepath.Join(m.out, "event"))
	if err != nil || !bytes.Contains(event, []byte(`"comm":"arping"`)) || !bytes.Contains(event, []byte(`"cgroup":"/system.slice/check.service"`)) {
		m.t.Errorf("%v\n%s", err, event)
	}
	m.step("reload")
	m.step("reloaded")
	m.step("refused")
	m.step("unharmed", `near +egress +packet-sockets +\w+ +guarded`)
	m.step("restarted")
	m.step("stop")
	if out := m.step("stopped", `near +egress +packet-sockets +\w+ +guarded`); strings.Contains(out, "run ") {
		m.t.Errorf("run goes on: %s", out)
	}
	for line := range strings.Lines(m.step("journal", "packaged is in force", "error: ")) {
		// A kernel may refuse programs at LSM hooks to everybody.
		if strings.Contains(strings.ToLower(line), "permitted") && !strings.Contains(line, "32-bit system calls") {
			m.t.Errorf("the sandbox is too tight: %s", line)
		}
	}
	m.step("flush", "no policy is in force")
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
	args := []string{"--quiet", "--register=no", "--keep-unit", "--machine=postern-test-" + strconv.Itoa(os.Getpid()),
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
	if _, err := os.Stat(filepath.Join(m.out, "flush")); err != nil {
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
			dir := filepath.Join(f[1], part[2], "postern-test-"+strconv.Itoa(os.Getpid()))
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

// announcements counts the ARP packets that arrived by the last byte of their sender's
// address.
func announcements(t testing.TB, far *lab.Receiver) map[byte]int {
	t.Helper()
	frames, counts := map[string]int{}, map[byte]int{}
	must(t, far.Drain(frames))
	var p filter.Packet
	for frame, n := range frames {
		p.Decode([]byte(frame), filter.Meta{})
		if p.HasARP {
			counts[p.Bytes(filter.LayerARP)[17]] += n
		}
	}
	return counts
}
