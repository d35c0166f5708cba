package matrix

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/i386"
	"github.com/postern-fw/postern/kernel/seal"
)

// cgroup makes a cgroup v2 for the test.
func cgroup(t testing.TB) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			dir := filepath.Join(f[1], "postern-test-"+rand.Text())
			must(t, os.Mkdir(dir, 0o755))
			t.Cleanup(func() {
				if err := unix.Rmdir(dir); err != nil {
					t.Errorf("remove the cgroup %s: %v", dir, err)
				}
			})
			return dir
		}
	}
	cannot(t, "needs a mounted cgroup v2 (mount -t cgroup2 none /sys/fs/cgroup)")
	return ""
}

// sealed seals a cgroup.
func (w *world) sealed(t testing.TB, cgroup string) seal.Seal {
	t.Helper()
	if err := seal.Probe(); err != nil {
		cannot(t, "needs a kernel with cgroup/setsockopt: "+err.Error())
	}
	s := seal.Seal{Cgroup: cgroup, Pin: filepath.Join(w.kernel.Root, "seal")}
	must(t, s.Install())
	t.Cleanup(func() { must(t, s.Remove()) })
	return s
}

// TestSeal: what the gate does not see, an AF_XDP socket, cannot be made below the seal, nor one
// with PACKET_QDISC_BYPASS. Without it, frames get out by AF_XDP whatever guards the device.
func TestSeal(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	dir := cgroup(t)
	last := len(paths()) // AF_XDP

	c := w.ownChild(t, r, opens, dir)
	c.expectAll(t, "without the seal")
	// A device's queue takes one AF_XDP socket: this one ends its own batches.
	xdp := c.sender(last)
	r.end = func(f []byte) error { _, err := xdp.send([][]byte{f}); return err }
	var tb table
	for _, role := range w.roles {
		w.guard(t, role.policy, how{})
		sum, err := r.measure(xdp, role, asSent)
		must(t, err)
		sum.expectOpen(t, "AF_XDP past the gate")
		tb.add("gate, no seal", xdp.path.kind(), sum)
	}
	c.stop(t)
	t.Logf("AF_XDP, %s", tb.sums())

	w.sealed(t, dir)
	c = w.ownChild(t, r, opens, dir)
	must(t, r.listen())
	refused := c.expectSealed(t)
	tb = table{}
	for _, role := range w.roles {
		w.guard(t, role.policy, how{})
		for i, why := range c.refused {
			if why != "" {
				continue
			}
			s := c.sender(i)
			sum, err := r.measure(s, role, asSent)
			must(t, err)
			sum.expectClosed(t, fmt.Sprintf("below the seal, %s, %s", role.policy.Name, s.path))
			tb.add("gate and seal", s.path.kind(), sum)
		}
	}
	t.Logf("below the seal, %d of %d paths cannot be opened; the others, %s", refused, len(c.refused), tb.sums())
}

// expectSealed: a child below the seal could open all sockets but those that bypass, and AF_XDP.
func (c *child) expectSealed(t testing.TB) (refused int) {
	t.Helper()
	var wrong []string
	for i, p := range everyPath() {
		sealed := p.bypass || p.call == callXDP
		if sealed {
			refused++
		}
		if sealed != strings.HasSuffix(c.refused[i], unix.EPERM.Error()) || !sealed && c.refused[i] != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %q", p, c.refused[i]))
		}
	}
	if len(wrong) > 0 {
		t.Errorf("below the seal, %d of %d paths are not as they should, the last: %s", len(wrong), len(c.refused), wrong[len(wrong)-1])
	}
	return refused
}

// TestSeal32: the kernel does not ask cgroup/setsockopt programs about a setsockopt by a 32-bit
// system call (do_sock_setsockopt), nor by an io_uring that one has set up. The seal closes both
// where the kernel takes its program for them, and else tells that they are open.
func TestSeal32(t *testing.T) {
	if !i386.Available() {
		t.Skip("this kernel has no system calls of i386: there is nothing to close")
	}
	w := newWorld(t)
	r := receive(t, w.Pair)
	dir := cgroup(t)
	var ways []string
	for _, way := range []string{opens32, ring32} {
		c := w.ownChild(t, r, way, dir)
		last := c.refused[len(c.refused)-1]
		if way == opens32 || !strings.HasSuffix(last, unix.EOPNOTSUPP.Error()) { // before Linux 6.7
			ways = append(ways, way)
			c.expectAll(t, way)
		}
		c.stop(t)
	}
	s := w.sealed(t, dir)
	state, err := s.Status()
	must(t, err)
	for _, way := range ways {
		c := w.ownChild(t, r, way, dir)
		if state.Open32 == "" {
			c.expectSealed(t)
		} else {
			c.expectAll(t, "told as open ("+state.Open32+"), "+way)
		}
		c.stop(t)
	}
	if state.Open32 != "" {
		t.Logf("32-bit calls pass: %s", state.Open32)
	}
}

// expectAll: a child could open all sockets.
func (c *child) expectAll(t testing.TB, how string) {
	t.Helper()
	for i, why := range c.refused {
		if why != "" {
			t.Errorf("%s: %s: %s", how, everyPath()[i], why)
			return
		}
	}
}

// ownChild is one that opens its sockets itself, AF_XDP too: the receiver makes room.
func (w *world) ownChild(t testing.TB, r *receiver, how, cgroup string) *child {
	t.Helper()
	r.pause()
	ns, err := unix.FcntlInt(uintptr(w.NS[0]), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	f := os.NewFile(uintptr(ns), "the near namespace")
	defer f.Close()
	c := w.startChild(t, how, cgroup, f)
	c.opened(t)
	return c
}

// TestGivenSockets: sockets that a process outside has opened, and that one below the seal
// inherits or is passed over a UNIX socket. The seal lets them be; the gate does not care.
func TestGivenSockets(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	dir := cgroup(t)
	w.sealed(t, dir)
	var tb table
	for _, way := range []string{inherits, isPassed} {
		c := w.givenChild(t, way, dir)
		for _, h := range []string{"no guard", "gate"} {
			w.unguard(t)
			for i, role := range w.roles {
				if h == "gate" {
					w.guard(t, role.policy, how{})
				} else if i < len(w.roles)-1 {
					continue // one role's frames show that the child can send
				}
				for i := range c.refused {
					s := c.sender(i)
					sum, err := r.measure(s, role, asSent)
					must(t, err)
					what := fmt.Sprintf("%s, %s, %s, %s", way, h, role.policy.Name, s.path)
					if h == "gate" {
						sum.expectClosed(t, what)
					} else {
						sum.expectOpen(t, what)
					}
					tb.add(way+", "+h, s.path.kind(), sum)
				}
			}
		}
		c.stop(t)
	}
	t.Logf("sockets from outside\n%s", tb.sums())
}

// givenChild is one that gets a socket for each path.
func (w *world) givenChild(t testing.TB, way, cgroup string) *child {
	t.Helper()
	var files []*os.File
	must(t, w.Do(0, func() error {
		for _, p := range paths() {
			fd, err := p.socket()
			if err != nil {
				return err
			}
			files = append(files, os.NewFile(uintptr(fd), p.String()))
		}
		return nil
	}))
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if way == inherits {
		c := w.startChild(t, way, cgroup, files...)
		c.opened(t)
		return c
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "a UNIX socket")
	defer theirs.Close()
	c := w.startChild(t, way, cgroup, theirs)
	must(t, pass(pair[0], files))
	c.opened(t)
	return c
}
