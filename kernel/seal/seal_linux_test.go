package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// room is a mount namespace with a bpffs of its own and the machine's cgroup2.
type room struct {
	bpffs   string
	cgroups string // a cgroup made for the test
}

// inRoom runs fn on a thread whose mount namespace ends with it.
func inRoom(t *testing.T, fn func(t *testing.T, r room)) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root to mount a bpffs and to make a cgroup")
	}
	if err := Probe(); err != nil {
		cannot(t, "needs a kernel with cgroup/setsockopt: "+err.Error())
	}
	done := make(chan struct{})
	go func() { // Never unlocked: the thread is thrown away, and its namespace with it.
		defer close(done)
		runtime.LockOSThread()
		must(t, unix.Unshare(unix.CLONE_NEWNS))
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		dir := t.TempDir()
		r := room{bpffs: filepath.Join(dir, "bpf")}
		must(t, os.Mkdir(r.bpffs, 0o755))
		must(t, unix.Mount("bpf", r.bpffs, "bpf", 0, ""))
		defer unix.Unmount(r.bpffs, unix.MNT_DETACH)
		tree := filepath.Join(dir, "cgroup")
		must(t, os.Mkdir(tree, 0o755))
		if err := unix.Mount("none", tree, "cgroup2", 0, ""); err != nil {
			cannot(t, "needs a kernel with cgroup v2: "+err.Error())
		}
		defer unix.Unmount(tree, unix.MNT_DETACH)
		r.cgroups = filepath.Join(tree, fmt.Sprintf("seal-test-%d", os.Getpid()))
		must(t, os.Mkdir(r.cgroups, 0o755))
		defer func() {
			if err := removeCgroups(r.cgroups); err != nil {
				t.Errorf("a cgroup was left behind: %v", err)
			}
		}()
		fn(t, r)
	}()
	<-done
}

// removeCgroups removes a cgroup and those directly below it.
func removeCgroups(path string) error {
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := unix.Rmdir(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	return unix.Rmdir(path)
}

func (r room) cgroup(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(r.cgroups, name)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return path
}

func (r room) seal(t testing.TB) Seal {
	t.Helper()
	return Seal{Cgroup: r.cgroup(t, "sealed"), Pin: filepath.Join(r.bpffs, "postern", "seal")}
}

// sealed is what an unsealed process finds, with what the seal refuses.
func sealed(open map[string]string) map[string]string {
	m := maps.Clone(open)
	m["bypass too short"] = "EPERM" // the kernel shows programs 16 bytes at least
	for _, name := range []string{"bypass", "bypass by a negative value", "bypass by a high byte", "bypass too long",
		"xdp umem", "xdp fill ring", "xdp completion ring", "xdp transmit ring"} {
		m[name] = "EPERM"
	}
	return m
}

// unsealed is what a process finds without a seal.
func unsealed(t testing.TB) map[string]string {
	t.Helper()
	open := child(t, "options", "", nil)
	for name, got := range open {
		want := "done"
		if name == "bypass too long" || name == "bypass too short" {
			want = "EINVAL"
		}
		if got != want {
			t.Fatalf("without a seal, %s: %s, want %s", name, got, want)
		}
	}
	return open
}

func same(t testing.TB, when string, got, want map[string]string) {
	t.Helper()
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s, %s: %s, want %s", when, name, got[name], want[name])
		}
	}
}

func expect(t testing.TB, s Seal, want State) {
	t.Helper()
	got, err := s.Status()
	got.Open32 = "" // TestSeal32 looks at it
	if err != nil || got != want {
		t.Errorf("status %+v, %v, want %+v", got, err, want)
	}
}

func TestSeal(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		s := r.seal(t)
		below, beside := filepath.Join(s.Cgroup, "below"), r.cgroup(t, "beside")
		must(t, os.Mkdir(below, 0o755))
		defer unix.Rmdir(below)
		open := unsealed(t)
		before, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		must(t, err)
		given := os.NewFile(uintptr(before), "a socket from outside")
		defer given.Close()

		same(t, "before", child(t, "options", s.Cgroup, nil), open)
		expect(t, s, State{})
		// A process that installs and ends.
		child(t, "install", "", nil, "SEAL_CGROUP="+s.Cgroup, "SEAL_PIN="+s.Pin)
		expect(t, s, State{Pinned: true, Sealed: true})
		same(t, "inside", child(t, "options", s.Cgroup, nil), sealed(open))
		same(t, "below", child(t, "options", below, nil), sealed(open))
		same(t, "beside", child(t, "options", beside, nil), open)
		same(t, "outside", child(t, "options", "", nil), open)
		if got := child(t, "given", s.Cgroup, []*os.File{given}); got["bypass"] != "done" || got["xdp umem"] != "EPERM" {
			t.Errorf("the package says that a socket from outside is not sealed, but %v", got)
		}
		if got := child(t, "race", s.Cgroup, nil); got["bypass"] != "0" || got["refused"] != "true" || got["done"] != "true" {
			t.Errorf("a value that changes: %v", got)
		}

		must(t, s.Install()) // adopts
		expect(t, s, State{Pinned: true, Sealed: true})
		same(t, "adopted", child(t, "options", s.Cgroup, nil), sealed(open))
		must(t, s.Remove())
		expect(t, s, State{})
		same(t, "removed", child(t, "options", s.Cgroup, nil), open)
		must(t, s.Remove())
	})
}

func TestCgroupMadeAnew(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		s := r.seal(t)
		must(t, s.Install())
		must(t, unix.Rmdir(s.Cgroup))
		if _, err := s.Status(); !errors.Is(err, ErrNoCgroup2) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("status without the cgroup: %v", err)
		}
		r.seal(t)
		expect(t, s, State{Pinned: true})
		must(t, s.Install())
		expect(t, s, State{Pinned: true, Sealed: true})
		same(t, "anew", child(t, "options", s.Cgroup, nil), sealed(unsealed(t)))
		must(t, unix.Rmdir(s.Cgroup))
		must(t, s.Remove())
		if _, err := os.Stat(s.Pin); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the pin: %v", err)
		}
	})
}

func TestInstallsAtOnce(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		s := r.seal(t)
		for range 5 {
			var installers []*exec.Cmd
			for range 4 {
				cmd := exec.Command("/proc/self/exe")
				cmd.Env = append(os.Environ(), hurry, "SEAL_CHILD=install", "SEAL_CGROUP="+s.Cgroup, "SEAL_PIN="+s.Pin)
				cmd.Stderr = os.Stderr
				must(t, cmd.Start())
				installers = append(installers, cmd)
			}
			for _, cmd := range installers {
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			}
			expect(t, s, State{Pinned: true, Sealed: true})
			must(t, unix.Rmdir(s.Cgroup)) // the next ones find the pin of a cgroup that is gone
			s = r.seal(t)
		}
		must(t, s.Remove())
	})
}

func TestForeign(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		s := r.seal(t)
		must(t, os.MkdirAll(filepath.Dir(s.Pin), 0o700))
		refused := func(what, want string) {
			t.Helper()
			_, statusErr := s.Status()
			for call, err := range map[string]error{"Install": s.Install(), "Remove": s.Remove(), "Status": statusErr} {
				if !errors.Is(err, ErrForeign) || !strings.Contains(fmt.Sprint(err), want) || !strings.Contains(fmt.Sprint(err), s.Pin) {
					t.Errorf("%s, where %s is pinned: %v, want %q", call, what, err, want)
				}
			}
			if _, err := os.Stat(s.Pin); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
		must(t, err)
		defer m.Close()
		must(t, m.Pin(s.Pin))
		refused("a map", "no link")
		must(t, m.Unpin())

		beside := Seal{Cgroup: r.cgroup(t, "beside"), Pin: s.Pin}
		must(t, beside.Install())
		refused("another cgroup's seal", "another cgroup")
		expect(t, beside, State{Pinned: true, Sealed: true})
		must(t, beside.Remove())

		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "theirs", Type: ebpf.CGroupSockopt, AttachType: ebpf.AttachCGroupSetsockopt, Instructions: instructions()})
		must(t, err)
		defer p.Close()
		dir, err := os.Open(s.Cgroup)
		must(t, err)
		defer dir.Close()
		l, err := attach(p, ebpf.AttachCGroupSetsockopt, dir)
		must(t, err)
		defer l.Close()
		must(t, l.Pin(s.Pin))
		refused("another program", `"theirs"`)
		must(t, l.Unpin())
	})
}

func TestErrorsNameTheLack(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		s := r.seal(t)
		tmp := t.TempDir()
		for _, tt := range []struct {
			seal Seal
			is   error
			want string
		}{
			{Seal{Cgroup: tmp, Pin: s.Pin}, ErrNoCgroup2, "mount -t cgroup2"},
			{Seal{Cgroup: filepath.Join(r.cgroups, "none"), Pin: s.Pin}, ErrNoCgroup2, "no such file"},
			{Seal{Cgroup: s.Cgroup, Pin: filepath.Join(tmp, "a", "b", "seal")}, ErrNoBPFFS, "mount -t bpf"},
			{Seal{Cgroup: s.Cgroup, Pin: filepath.Join(s.Cgroup, "seal")}, ErrNoBPFFS, s.Cgroup},
		} {
			if err := tt.seal.Install(); !errors.Is(err, tt.is) || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("%+v: %v, want %q", tt.seal, err, tt.want)
			}
			if tt.is != ErrNoBPFFS {
				continue
			}
			// A bpffs that is hidden is no proof that there is no seal.
			if state, err := tt.seal.Status(); !errors.Is(err, ErrNoBPFFS) {
				t.Errorf("Status of %+v: %+v, %v", tt.seal, state, err)
			}
			if err := tt.seal.Remove(); !errors.Is(err, ErrNoBPFFS) {
				t.Errorf("Remove of %+v: %v", tt.seal, err)
			}
		}
		if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 0 {
			t.Errorf("made directories outside of a bpffs: %v, %v", entries, err)
		}
		if got := child(t, "unprivileged", "", nil); got["permission"] != "true" || !strings.Contains(got["error"], "CAP_BPF") {
			t.Errorf("Probe without rights: %v", got)
		}
	})
}
