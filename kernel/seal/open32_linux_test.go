package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/i386"
)

// calls32 sets options by 32-bit system calls, and one by a native call.
func calls32() (map[string]string, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, err
	}
	xdp, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	try := func(name string, fd, level, option int, value int32) {
		got[name] = "done"
		if errno := i386.Setsockopt(fd, level, option, unsafe.Pointer(&value), 4); errno != 0 {
			got[name] = unix.ErrnoName(errno)
		}
	}
	try("bypass", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	try("no bypass", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 0)
	try("version", fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3)
	try("send buffer", fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<16)
	try("xdp fill ring", xdp, unix.SOL_XDP, unix.XDP_UMEM_FILL_RING, 64)
	got["native no bypass"] = "done"
	if errno := set(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, int32(0)); errno != 0 {
		got["native no bypass"] = unix.ErrnoName(errno)
	}
	return got, nil
}

// open32bit is what a process finds where nothing closes 32-bit calls, closed32bit where the seal does.
var (
	open32bit = map[string]string{"bypass": "done", "no bypass": "done", "version": "done", "send buffer": "done",
		"xdp fill ring": "done", "native no bypass": "done"}
	closed32bit = map[string]string{"bypass": "EPERM", "no bypass": "EPERM", "version": "done", "send buffer": "done",
		"xdp fill ring": "EPERM", "native no bypass": "done"}
)

func status(t testing.TB, s Seal) State {
	t.Helper()
	state, err := s.Status()
	must(t, err)
	return state
}

// TestSeal32: 32-bit calls are refused where the kernel takes a program for them, and where it does
// not the seal tells.
func TestSeal32(t *testing.T) {
	if !i386.Available() {
		t.Skip("this kernel has no system calls of i386: there is nothing to close")
	}
	inRoom(t, func(t *testing.T, r room) {
		s := r.seal(t)
		same(t, "before", child(t, "calls32", s.Cgroup, nil), open32bit)
		must(t, s.Install())
		defer func() { must(t, s.Remove()) }()
		if why := status(t, s).Open32; why != "" {
			same(t, "told as open ("+why+")", child(t, "calls32", s.Cgroup, nil), open32bit)
			t.Logf("32-bit calls pass: %s", why)
			return
		}
		same(t, "sealed", child(t, "calls32", s.Cgroup, nil), closed32bit)
		same(t, "outside", child(t, "calls32", "", nil), open32bit)
		must(t, s.Install())
		same(t, "exchanged", child(t, "calls32", s.Cgroup, nil), closed32bit)

		// One of the two is left over.
		must(t, Release(s.Pins()[0]))
		expect(t, s, State{Pinned: true})
		same(t, "without the first program", child(t, "calls32", s.Cgroup, nil), closed32bit)
		must(t, s.Install())
		same(t, "the first is there again", child(t, "options", s.Cgroup, nil), sealed(unsealed(t)))
		must(t, Release(s.Pins()[1]))
		if got := status(t, s); !got.Sealed || !strings.Contains(got.Open32, "not attached") {
			t.Errorf("without the second program: %+v", got)
		}
		same(t, "without the second program", child(t, "calls32", s.Cgroup, nil), open32bit)
		must(t, s.Install())
		if got := status(t, s); got != (State{Pinned: true, Sealed: true}) {
			t.Errorf("the second is there again: %+v", got)
		}
		same(t, "the second is there again", child(t, "calls32", s.Cgroup, nil), closed32bit)

		must(t, Release(s.Pins()[0]))
		must(t, s.Remove())
		expect(t, s, State{})
		same(t, "removed", child(t, "calls32", s.Cgroup, nil), open32bit)

		must(t, s.Install())
		must(t, unix.Rmdir(s.Cgroup))
		r.seal(t)
		expect(t, s, State{Pinned: true})
		must(t, s.Install())
		same(t, "cgroup made anew", child(t, "calls32", s.Cgroup, nil), closed32bit)
	})
}

// TestKernelsThatRefuse: without the program for 32-bit calls the seal is as good as it can be.
func TestKernelsThatRefuse(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		load, asked, has := load32, active, compat
		defer func() { load32, active, compat = load, asked, has }()
		s := r.seal(t)
		lack := fmt.Errorf("no hook: %w", ErrNotSupported)
		load32 = func() (*ebpf.Program, error) { return nil, lack }
		active = func() error { return nil }
		compat = func() bool { return true }
		for range 2 {
			must(t, s.Install())
			same(t, "native calls", child(t, "options", s.Cgroup, nil), sealed(unsealed(t)))
			if got := status(t, s); got != (State{Pinned: true, Sealed: true, Open32: lack.Error()}) {
				t.Errorf("without the LSM hook: %+v", got)
			}
		}
		if _, err := os.Stat(s.Pins()[1]); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a pin of nothing: %v", err)
		}
		compat = func() bool { return false }
		if got := status(t, s); got != (State{Pinned: true, Sealed: true}) {
			t.Errorf("without 32-bit system calls: %+v", got)
		}
		must(t, s.Remove())
		expect(t, s, State{})

		compat = func() bool { return true }
		active = func() error { return lack }
		if got := open32(true); got != lack.Error() {
			t.Errorf("a program that is never run: %q", got)
		}
		active = func() error { return nil }
		if got := open32(true); got != "" {
			t.Errorf("a program that is run: %q", got)
		}
	})
}

// TestNative: what the kernel's types do not tell is refused.
func TestNative(t *testing.T) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		cannot(t, "needs the kernel's types: "+err.Error())
	}
	if got := native(spec, runtime.GOARCH); len(got) < 6 && (runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64") {
		t.Errorf("on this kernel %v", got)
	}
	if got := native(spec, "s390x"); len(got) != 1 || got[0].Reference() != "refuse" {
		t.Errorf("on another processor %v", got)
	}
	for _, path := range [][]string{{"task_struct", "no such member"}, {"no_such_struct", "flags"}, {"task_struct", "flags", "of a number"}} {
		if at, ok := offset(spec, path[0], path[1:]...); ok {
			t.Errorf("%v is at %d", path, at)
		}
	}
}

func TestCompat(t *testing.T) {
	if i386.Available() && !compat() {
		t.Error("the kernel has system calls of i386, and its symbols are said to have none")
	}
}
