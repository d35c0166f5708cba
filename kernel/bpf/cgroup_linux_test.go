package bpf

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// TestMain: the test binary is also the program that sends a frame from within a cgroup.
func TestMain(m *testing.M) {
	if i, err := strconv.Atoi(os.Getenv("POSTERN_SEND_BY")); err == nil {
		if err := sendOne(i); err != nil && !errors.Is(err, unix.ENOBUFS) {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func sendOne(ifindex int) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, tailed(1), 0, &unix.SockaddrLinklayer{Ifindex: ifindex})
}

// cgroups is a cgroup of the test's own, its path below the mount, and the mount.
type cgroups struct {
	t           *testing.T
	mount, path string
}

// cgroupMount is where cgroup2 is mounted, "" if it is not.
func cgroupMount() string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1]
		}
	}
	return ""
}

func newCgroups(t *testing.T) *cgroups {
	t.Helper()
	c := &cgroups{t: t, path: fmt.Sprintf("/postern-bpf-test-%d", os.Getpid())}
	c.mount = cgroupMount()
	if c.mount == "" {
		cannot(t, "needs a mount of cgroup2")
	}
	if err := os.Mkdir(c.mount+c.path, 0o755); err != nil {
		cannot(t, "needs to make cgroups: "+err.Error())
	}
	t.Cleanup(func() {
		dirs := []string{c.mount + c.path}
		below, _ := os.ReadDir(dirs[0])
		for _, e := range below {
			if e.IsDir() {
				dirs = append([]string{filepath.Join(c.mount, c.path, e.Name())}, dirs...)
			}
		}
		for _, dir := range dirs {
			if err := unix.Rmdir(dir); err != nil {
				t.Errorf("a cgroup was left behind: %v", err)
			}
		}
	})
	return c
}

func (c *cgroups) make(name string) {
	c.t.Helper()
	if err := os.Mkdir(filepath.Join(c.mount, c.path, name), 0o755); err != nil {
		c.t.Fatal(err)
	}
}

// send has a process in a cgroup send a frame.
func (c *cgroups) send(g *guarded, name string) {
	c.t.Helper()
	dir, err := os.Open(filepath.Join(c.mount, c.path, name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer dir.Close()
	if err := g.Do(0, func() error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), fmt.Sprint("POSTERN_SEND_BY=", g.near), "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}); err != nil {
		c.t.Fatalf("sending from the cgroup %s: %v", name, err)
	}
}

// TestCgroup: a process in a cgroup sends, and the rule that names the cgroup decides.
func TestCgroup(t *testing.T) {
	cg := newCgroups(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		cg.make(name)
	}
	src := strings.ReplaceAll(`policy: p
sets: {listed: {type: string, elements: [CG/b]}, pairs: {type: [string, ipv4], elements: [[CG/e, 192.0.2.0/28]]}}
rules:
  - {name: a, match: 'sender.cgroup == "CG/a"', verdict: accept}
  - {name: listed, match: 'sender.cgroup in @listed', verdict: accept}
  - {name: none, match: 'sender.cgroup in {"/", "CG/none"} || !sender.cgroup', verdict: drop}
  - {name: pair, match: '(sender.cgroup, arp.src.proto_ipv4) in @pairs', verdict: drop}
  - {name: others, match: 'sender.cgroup != "CG/c"', verdict: drop}
  - {name: once, match: arp, limit: {rate: 1/d, burst: 1, per: sender.cgroup}, verdict: accept}
default: drop
`, "CG", cg.path)
	for _, linear := range []int{12, -1} {
		t.Run(fmt.Sprint(linear), func(t *testing.T) { testCgroup(t, src, cg, linear) })
	}
}

func testCgroup(t *testing.T, src string, cg *cgroups, linear int) {
	g := guard(t, src, Options{linear: linear})
	policy, far := g.fw.Policy(), g.socket(1, g.Ifi[1].Index)
	resolve := func() {
		t.Helper()
		if err := g.engine.ResolveCgroups(policy, cg.mount); err != nil {
			t.Fatal(err)
		}
	}
	before := make([]uint64, len(policy.Rules)+2)
	expect := func(cgroup, rule string, arrives bool) {
		t.Helper()
		cg.send(g, cgroup)
		if got := receive(far, tail) != nil; got != arrives {
			t.Errorf("sent from %s: arrived: %v", cgroup, got)
		}
		counters, err := g.engine.Counters(policy)
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range counters {
			name := "default"
			if i < len(policy.Rules) {
				name = policy.Rules[i].Name
			}
			want := before[i]
			if name == rule && i <= len(policy.Rules) {
				want++
			}
			if c.Frames != want {
				t.Errorf("sent from %s: %s counted %d frames, want %d", cgroup, name, c.Frames, want)
			}
			before[i] = c.Frames
		}
	}
	expect("a", "others", false) // nobody told the program yet
	resolve()
	expect("a", "a", true)
	expect("b", "listed", true)
	expect("c", "once", true)
	expect("c", "default", false)
	expect("d", "others", false)
	expect("e", "pair", false)

	// A set of paths changes, and a cgroup is made anew under the same path.
	if err := g.engine.UpdateSet("listed", func(u *SetUpdate) error {
		e, err := u.Decl().Element(cg.path + "/d")
		if err != nil {
			return err
		}
		return u.Add(e)
	}); err != nil {
		t.Fatal(err)
	}
	resolve()
	expect("d", "listed", true)
	if err := unix.Rmdir(filepath.Join(cg.mount, cg.path, "c")); err != nil {
		t.Fatal(err)
	}
	cg.make("c")
	expect("c", "others", false)
	resolve()
	expect("c", "once", true)
	expect("a", "a", true)
}

// TestCgroupNeeds: what the kernel's number cannot tell is refused, and its rule named.
func TestCgroupNeeds(t *testing.T) {
	for match, ok := range map[string]bool{
		`sender.cgroup == "/a"`: true, `sender.cgroup != "/a"`: true, `sender.cgroup in {"/a", "/b"}`: true, `sender.cgroup`: true,
		`sender.cgroup < "/a"`: false, `sender.cgroup in {"/a".."/b"}`: false, `sender.cgroup[0:2] == 2f:61`: false, `sender.cgroup[1:]`: false,
		`sender.cgroup == sender.comm`: false, `iface.name == sender.cgroup`: false, `sender.cgroup == "a"`: false, `sender.cgroup == ""`: false,
		`sender.cgroup == "/` + strings.Repeat("a", 250) + `"`: true, `sender.cgroup == "/` + strings.Repeat("a", 255) + `"`: false,
	} {
		_, err := Compile(firewall.Compile(parse(t, fmt.Sprintf("policy: p\nrules:\n  - {name: r0, match: '%s', verdict: drop}\n", match))), Options{})
		if ok && err != nil || !ok && (!errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), `rule "r0"`)) {
			t.Errorf("%s: %v", match, err)
		}
	}
}
