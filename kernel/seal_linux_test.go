package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/seal"
)

// cgroup makes a cgroup v2 of the test's own, with nobody in it.
func cgroup(t testing.TB) (name string) {
	t.Helper()
	mount, err := cgroup2Mount()
	if err != nil {
		cannot(t, err.Error())
	}
	name = fmt.Sprintf("/postern-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	must(t, os.Mkdir(filepath.Join(mount, name), 0o755))
	t.Cleanup(func() { os.Remove(filepath.Join(mount, name)) })
	return name
}

func TestSeal(t *testing.T) {
	w := newWorld(t)
	name := cgroup(t)
	policy := strings.ReplaceAll(vips, "HOOK", "auto")
	sealed := policy + "seal: " + name + "\n"
	s := w.apply(sealed)
	if len(s.Seals) != 1 || !s.Seals[0].Sealed {
		t.Errorf("%+v", s.Seals)
	}
	if s.Interfaces[0].Hook != "gate" {
		t.Errorf("a seal of some sockets leaves the others to %s", s.Interfaces[0].Hook)
	}
	expectTold(t, s)
	pins, _ := filepath.Glob(filepath.Join(w.Root, "*", nameSeals, "*"))
	if want := map[bool]int{true: 2, false: 1}[s.Seals[0].Open32 == ""]; len(pins) != want {
		t.Errorf("pins %v, want %d", pins, want)
	}
	s = w.apply(policy)
	pins, _ = filepath.Glob(filepath.Join(w.Root, "*", nameSeals, "*"))
	if len(s.Seals) != 0 || len(pins) != 0 {
		t.Errorf("%+v %v", s.Seals, pins)
	}
	// The kernel would not take a seal back by itself: it waits for the confirmation.
	if _, err := w.Apply(Source{"test.yaml", []byte(sealed)}, ApplyOptions{Confirm: time.Minute}); err != nil {
		t.Fatal(err)
	}
	s, err := w.Status()
	must(t, err)
	if s.Seals[0].Sealed {
		t.Error("sealed before it was confirmed")
	}
	must(t, w.Confirm())
	if s, err = w.Status(); err != nil || !s.Seals[0].Sealed {
		t.Errorf("%+v %v", s, err)
	}
	// What cannot be sealed leaves all as it was.
	_, err = w.Apply(Source{"test.yaml", []byte(policy + "seal: [" + name + ", /no/such/cgroup]\n")}, ApplyOptions{})
	if !errors.Is(err, seal.ErrNoCgroup2) {
		t.Errorf("%v", err)
	}
	after, err := w.Status()
	must(t, err)
	if after.Generation != s.Generation || !after.Seals[0].Sealed || !after.Interfaces[0].Guarded {
		t.Errorf("%+v", after)
	}
	w.expect("still in force", false, 1)
	// Nor does it keep one that was to be confirmed: that waits on, and goes back.
	_, err = w.Apply(Source{"test.yaml", []byte(policy + "seal: [" + name + ", /no/such/cgroup]\n")}, ApplyOptions{Confirm: time.Minute})
	must(t, err)
	if err := w.Confirm(); !errors.Is(err, seal.ErrNoCgroup2) {
		t.Errorf("%v", err)
	}
	if after, err = w.Status(); err != nil || after.Pending == nil {
		t.Errorf("%+v %v", after, err)
	}
	must(t, w.Rollback())
	if after, err = w.Status(); err != nil || after.Generation != s.Generation || after.Pending != nil || !after.Seals[0].Sealed {
		t.Errorf("%+v %v", after, err)
	}
	must(t, w.Flush())
	if pins, _ := filepath.Glob(filepath.Join(w.Root, "net-*")); len(pins) != 0 {
		t.Errorf("left: %v", pins)
	}
}

// expectTold: status warns of a seal that 32-bit calls pass, and of no other.
func expectTold(t testing.TB, s *Status) {
	t.Helper()
	for _, x := range s.Seals {
		told := strings.Contains(strings.Join(s.Warnings, "\n"), "32-bit system calls pass the seal of "+x.Cgroup+": ")
		if told != (x.Open32 != "") {
			t.Errorf("%+v, and the warnings are %q", x, s.Warnings)
		}
	}
}

// TestAuto: with every socket of the machine sealed, tc is enough and cheaper; with a packet socket from
// before, it is not.
func TestAuto(t *testing.T) {
	w := newWorld(t)
	name := cgroup(t)
	mount, err := cgroup2Mount()
	must(t, err)
	real := wholeMachine
	t.Cleanup(func() { wholeMachine = real })
	if wholeMachine(filepath.Join(mount, name)) {
		t.Error("a cgroup below the root is taken for the whole machine")
	}
	wholeMachine = func(path string) bool { return path == filepath.Join(mount, name) }
	policy := strings.ReplaceAll(vips, "HOOK", "auto") + "seal: " + name + "\n"
	var fd int
	must(t, w.Do(0, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	if s := w.apply(policy); s.Interfaces[0].Hook != "gate" {
		t.Errorf("with a socket from before the seal: %+v", s.Interfaces[0])
	}
	unix.Close(fd)
	// Where 32-bit calls pass the seal, tc is not enough.
	found := open32
	t.Cleanup(func() { open32 = found })
	open32 = func(seal.State) string { return "no hook" }
	if s := w.apply(policy); s.Interfaces[0].Hook != "gate" {
		t.Errorf("with a seal that 32-bit calls pass: %+v", s.Interfaces[0])
	} else if xdp := s.Interfaces[0].Paths[2]; xdp.Closed || !strings.Contains(xdp.Why, "32-bit") {
		t.Errorf("with a seal that 32-bit calls pass: %+v", xdp)
	} else {
		expectTold(t, s)
	}
	open32 = func(seal.State) string { return "" }
	s := w.apply(policy)
	if s.Interfaces[0].Hook != "tcx" || !s.Interfaces[0].Guarded {
		t.Fatalf("with none: %+v", s.Interfaces[0])
	}
	for _, p := range s.Interfaces[0].Paths[:3] {
		if !p.Closed {
			t.Errorf("%+v", p)
		}
	}
	w.expect("by tc", false, 1)
	// A socket that was made since is below the seal.
	must(t, w.Do(0, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(fd)
	if s := w.apply(policy); s.Interfaces[0].Hook != "tcx" {
		t.Errorf("with a socket from since: %+v", s.Interfaces[0])
	}
}
