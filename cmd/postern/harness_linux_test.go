package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
)

// kernelWithout says what this kernel, or this process, lacks for enforcement; "" if nothing.
func kernelWithout(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "needs root for network namespaces and eBPF"
	}
	if err := bpf.Probe(); err != nil {
		return err.Error()
	}
	if err := gate.Probe(0); err != nil {
		return err.Error()
	}
	return ""
}

// commandOf is postern in a process of its own.
func commandOf(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "NOTIFY_SOCKET=")
	return cmd
}

// field is a network namespace whose way out, near, is to be guarded, and what arrives at
// the other end.
type field struct {
	t testing.TB
	*lab.Pair
	host    kernel.Host
	sockets string
	far     *lab.Receiver
}

func newField(t testing.TB) *field {
	t.Helper()
	if why := kernelWithout(t); why != "" {
		labtest.Cannot(t, why)
	}
	p, err := lab.New()
	must(t, err)
	t.Cleanup(p.Close)
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	far, err := p.Receive(1)
	must(t, err)
	t.Cleanup(func() { far.Close() })
	return &field{t, p, kernel.Host{Root: root, NetNS: int(p.NS[0])}, t.TempDir(), far}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// term has commands work on the field.
func (f *field) term(t *term) *term {
	t.machine.host, t.machine.sockets, t.machine.began = f.host, f.sockets, bootTime()
	return t
}

// command runs a command to its end.
func (f *field) command(args ...string) (code int, out, errs string) {
	return f.commandWith("", args...)
}

func (f *field) commandWith(stdin string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = f.term(newTerm(strings.NewReader(stdin), &o, &e)).run(f.t.Context(), args)
	return code, o.String(), e.String()
}

// does runs a command that must succeed.
func (f *field) does(args ...string) (out string) {
	f.t.Helper()
	code, out, errs := f.command(args...)
	if code != 0 {
		f.t.Fatalf("%s: %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// policy writes a policy file.
func (f *field) policy(text string) string {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), "policy.yaml")
	must(f.t, os.WriteFile(file, []byte(text), 0o644))
	return file
}

// announcement is an ARP announcement of 192.0.2.x.
func (f *field) announcement(x byte) []byte {
	mac := string(f.Ifi[0].HardwareAddr)
	ip := "\xc0\x00\x02" + string([]byte{x})
	b := []byte("\xff\xff\xff\xff\xff\xff" + mac + "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac + ip + "\x00\x00\x00\x00\x00\x00" + ip)
	return append(b, make([]byte, 60-len(b))...)
}

// send sends an announcement by a packet socket with PACKET_QDISC_BYPASS, out of
// interface ifi, and says whether it arrived.
func (f *field) send(x byte) (arrived bool) {
	f.t.Helper()
	frame := f.announcement(x)
	must(f.t, (&demoKernel{pair: f.Pair}).socket(frame, true, false))
	// What arrives comes at once: veth hands it on before sendto returns, or in the next
	// softirq.
	counts := map[string]int{}
	must(f.t, f.far.Drain(counts))
	return counts[string(frame)] > 0
}

// expect says which of the announcements arrive.
func (f *field) expect(when string, want map[byte]bool) {
	f.t.Helper()
	for x, arrives := range want {
		if got := f.send(x); got != arrives {
			f.t.Errorf("%s: the announcement of 192.0.2.%d arrived: %t, want %t", when, x, got, arrives)
		}
	}
}

// eventually waits for what another goroutine or process does.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// reading waits until a process waits for its standard input.
func reading(t testing.TB, pid int) {
	t.Helper()
	eventually(t, "the process reads its standard input", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", pid))
		for _, task := range tasks {
			if b, err := os.ReadFile(task); err == nil && strings.HasPrefix(string(b), fmt.Sprintf("%d 0x0 ", unix.SYS_READ)) {
				return true
			}
		}
		return false
	})
}
