package fence

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/cluster"
)

// shim runs a program that sees CLOCK_REALTIME off by what the file says at that moment, as if
// somebody had stepped the host's clock; there is no namespace for it (time_namespaces(7)). The program is
// traced: without AT_SYSINFO_EHDR it does not find the vDSO and has to ask the kernel for the time, and
// what the kernel answers is changed on its way. The program dies with the shim.
func shim(file string, args []string) int {
	runtime.LockOSThread() // a tracer is a thread
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		return 125
	}
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	_, err := unix.Wait4(pid, &status, 0, nil) // it stands before its first instruction
	if err == nil {
		err = unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_EXITKILL)
	}
	if err == nil {
		err = hideVDSO(pid)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		return 125
	}
	_ = unix.PtraceSyscall(pid, 0)
	for {
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return 125
		case !status.Stopped():
			if tid == pid {
				return status.ExitStatus()
			}
			continue
		}
		signal := status.StopSignal()
		switch {
		case signal == unix.SIGTRAP|0x80:
			step(tid, file)
			signal = 0
		case signal == unix.SIGTRAP, signal == unix.SIGSTOP: // it made a thread, or is a new one
			signal = 0
		}
		_ = unix.PtraceSyscall(tid, int(signal)) // it may have been killed meanwhile
	}
}

// hideVDSO makes AT_SYSINFO_EHDR in the auxiliary vector AT_IGNORE. On the stack stand argc, the arguments, 0, the
// environment, 0, and that vector.
func hideVDSO(pid int) error {
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return err
	}
	at := uintptr(regs.Rsp)
	word := func() uint64 {
		var b [8]byte
		_, _ = unix.PtracePeekData(pid, at, b[:])
		at += 8
		return binary.NativeEndian.Uint64(b[:])
	}
	at += 8 * uintptr(word()+1)
	for word() != 0 {
	}
	for {
		switch word() {
		case 0:
			return fmt.Errorf("no AT_SYSINFO_EHDR in the auxiliary vector")
		case 33:
			ignore := binary.NativeEndian.AppendUint64(nil, 1)
			_, err := unix.PtracePokeData(pid, at-8, ignore)
			return err
		}
		at += 8
	}
}

// step changes what clock_gettime(CLOCK_REALTIME) has answered. Before a system call rax is -ENOSYS.
func step(tid int, file string) {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(tid, &regs) != nil || regs.Orig_rax != unix.SYS_CLOCK_GETTIME || regs.Rdi != unix.CLOCK_REALTIME || regs.Rax != 0 {
		return
	}
	text, _ := os.ReadFile(file)
	off, _ := strconv.ParseInt(string(text), 10, 64)
	var b [8]byte
	_, _ = unix.PtracePeekData(tid, uintptr(regs.Rsi), b[:])
	binary.NativeEndian.PutUint64(b[:], uint64(int64(binary.NativeEndian.Uint64(b[:]))+off))
	_, _ = unix.PtracePokeData(tid, uintptr(regs.Rsi), b[:])
}

// TestStepped: the clock of an agent's host is stepped, forward and backward, while it holds an address, while it is
// frozen, and before it is killed. It goes on holding the address, and loses it no later and no earlier than
// with a clock that is right.
func TestStepped(t *testing.T) {
	parallel(t)
	if raceEnabled {
		t.Skip("the race detector sees no other process")
	}
	o := options(t)
	o.Config = "announce: {count: 3, interval: 300ms, refresh: 500ms, probe-interval: 50ms}\naddresses: [{address: 10.8.1.1, prefer: [n1]}]\n"
	s := newSite(t, o)
	vip, n := addresses(1)[0], s.Nodes[0]
	file := join(s.Dir, "clock")
	off := time.Duration(0)
	set := func(by time.Duration) {
		off = by
		must(t, os.WriteFile(file+"~", strconv.AppendInt(nil, int64(by/time.Second), 10), 0o600))
		must(t, os.Rename(file+"~", file))
	}
	set(0)
	self, err := os.Executable()
	must(t, err)
	n.by = []string{"env", stepped + "=" + file, self}
	for _, n := range s.Nodes {
		must(t, n.Start())
	}
	s.ask(t, addresses(1))
	speaks := func(what, name string) {
		t.Helper()
		from := cluster.BootTime()
		eventually(t, lease+20*time.Second, what+": "+name+" speaks", func() bool { return strings.HasPrefix(s.speaker(vip, from), name) })
	}
	// sees fails where the agent does not see the clock as it was set, by when it says that it claimed the address.
	sees := func() {
		t.Helper()
		st := n.control(t, "/vips")
		if st == nil || st.Addresses[0].Node != "n1" {
			t.Fatalf("n1 does not hold the address: %+v", st)
		}
		if d := time.Until(st.Addresses[0].Since) - off; d > time.Minute || d < -time.Minute {
			t.Errorf("the agent's clock was to be off by %v, and it says that it holds the address since %v", off, st.Addresses[0].Since)
		}
	}
	speaks("started", "n1")
	sees()
	for _, by := range []time.Duration{time.Hour, -time.Hour} {
		before := s.history(t)[vip]
		set(by)
		for end := cluster.BootTime() + int64(lease+time.Second); cluster.BootTime() < end; time.Sleep(50 * time.Millisecond) {
			s.deadlines(t, n)
		}
		speaks("stepped", "n1")
		if after := s.history(t)[vip]; len(after) != len(before) {
			t.Errorf("stepped by %v: the holders were %v, and then %v", by, before, after)
		}
		n.control(t, "/drain")
		speaks("drained", "n2")
		n.control(t, "/undrain")
		speaks("undrained", "n1")
		sees()
	}
	// The agent stands where it asks its tracer next.
	must(t, n.Agent.Signal(syscall.SIGSTOP))
	set(0)
	struck := cluster.BootTime()
	s.taken(t, n, vip, struck)
	must(t, n.Agent.Signal(syscall.SIGCONT))
	speaks("goes on", "n1")
	set(time.Hour)
	struck = cluster.BootTime()
	n.Agent.Kill()
	s.taken(t, n, vip, struck)
	wrong, judged := Judge(s.Observer.Seen(0), s.NodeOf, s.history(t))
	t.Logf("%d frames judged", judged)
	for _, w := range wrong {
		t.Error(w)
	}
}

// deadlines fails where a door of the node is open for longer than a lease can last.
func (s *Site) deadlines(t testing.TB, n *Node) {
	t.Helper()
	list, err := n.Host().ListSet("vips")
	must(t, err)
	for _, e := range list {
		if e.Remaining == 0 || e.Remaining > lease {
			t.Errorf("the door of %v is open for %v", e.Text, e.Remaining)
		}
	}
}

// taken waits until another node speaks for an address that one has lost.
func (s *Site) taken(t testing.TB, from *Node, a netip.Addr, struck int64) {
	t.Helper()
	var took time.Duration
	eventually(t, lease+20*time.Second, "another one speaks", func() bool {
		for _, f := range s.Observer.Since(struck) {
			if f.Sender == a && f.Port != from.Port.Index {
				took = time.Duration(f.At - struck)
				return true
			}
		}
		return false
	})
	t.Logf("another one speaks %v after it", took)
	if took > lease+time.Second+slack() {
		t.Errorf("another one speaks %v after it", took)
	}
}
