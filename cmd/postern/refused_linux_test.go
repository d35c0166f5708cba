package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/bpffs"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/seal"
	"github.com/postern-fw/postern/kernel/tc"
)

// Whatever the machine lacks has its exit code and, unless the error names it itself,
// its remedy.
func TestRefused(t *testing.T) {
	_, _, wrong := firewall.Parse("p.yaml", []byte("policy: p\nrule: []\n"))
	for _, tt := range []struct {
		err    error
		code   int
		remedy string
	}{
		{wrong, exitNo, ""},
		{kernel.ErrNothing, exitNo, "postern apply -f FILE"},
		{kernel.ErrNotPending, exitNo, ""},
		{kernel.ErrNoSet, exitNo, "postern set list"},
		{bpf.ErrTooLarge, exitNo, ""},
		{bpf.ErrNotSupported, exitMachine, ""},
		{kernel.ErrBusy, exitMachine, "postern run can be read by several"},
		{bpffs.ErrNone, exitMachine, ""},
		{gate.ErrForeign, exitMachine, "nft list tables"},
		{tc.ErrForeign, exitMachine, "remove it from the bpffs"},
		{seal.ErrForeign, exitMachine, "remove it from the bpffs"},
		{seal.ErrNoCgroup2, exitMachine, "mount -t cgroup2"},
		{gate.ErrNotSupported, exitMachine, "postern doctor"},
		{tc.ErrNotSupported, exitMachine, "postern doctor"},
		{seal.ErrNotSupported, exitMachine, "postern doctor"},
		{&control.RunningError{PID: 7}, exitMachine, "at SIGHUP"},
		{unix.EIO, exitMachine, ""},
	} {
		var errs strings.Builder
		term := newTerm(nil, nil, &errs)
		var e *exitError
		if err := term.refused(fmt.Errorf("of something: %w", tt.err)); !errors.As(err, &e) || e.code != tt.code {
			t.Errorf("%v: %v", tt.err, err)
			continue
		}
		if e.err == nil {
			if !strings.Contains(errs.String(), "p.yaml:2:1: error: unknown key") {
				t.Errorf("%v: %q", tt.err, errs.String())
			}
			continue
		}
		if _, remedy, _ := strings.Cut(e.err.Error(), "\nremedy: "); !errors.Is(e.err, tt.err) || !strings.Contains(remedy, tt.remedy) || (tt.remedy == "" && os.Geteuid() == 0 && remedy != "") {
			t.Errorf("%v: %v", tt.err, e.err)
		}
	}
	if err := newTerm(nil, nil, nil).refused(nil); err != nil {
		t.Errorf("nothing was refused, %v", err)
	}
}

// A policy that asks for what no kernel can do is to blame, else the kernel is.
func TestRefusedPolicy(t *testing.T) {
	for file, code := range map[string]int{"cgroup.yaml": exitNo, "good.yaml": exitMachine} {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var e *exitError
		if err := newTerm(nil, nil, nil).refusedPolicy(kernel.Source{Name: file, Text: text}, bpf.ErrNotSupported); !errors.As(err, &e) || e.code != code {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// TestRights: what is missing is named.
func TestRights(t *testing.T) {
	said := make(chan string)
	without := func(lost ...uint) {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		for _, c := range lost {
			data[c/32].Effective &^= 1 << (c % 32)
		}
		if err == nil {
			err = unix.Capset(&hdr, &data[0])
		}
		if err != nil {
			said <- err.Error()
			return
		}
		said <- rights()
	}
	go without(unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN)
	if got := <-said; got != "run as root: this process has no CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON" {
		t.Errorf("without any right: %q", got)
	}
	if os.Geteuid() != 0 {
		return
	}
	go without(unix.CAP_BPF, unix.CAP_SYS_ADMIN)
	if got := <-said; got != "run as root: this process has no CAP_BPF" {
		t.Errorf("without CAP_BPF: %q", got)
	}
	go without()
	if got := <-said; got != "" && !inUserNamespace() {
		t.Errorf("with all rights: %q", got)
	}
}

// slowReader gives its line late.
type slowReader struct{ line *strings.Reader }

func (r slowReader) Read(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return r.line.Read(b)
}

// A time to live counts from the start of the command, however long it takes to get to
// the kernel.
func TestTTL(t *testing.T) {
	f := newFake()
	text, err := os.ReadFile("testdata/sets.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Apply(kernel.Source{Name: "sets.yaml", Text: text}, kernel.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	began := bootTime()
	for _, start := range []int64{fakeBegan, began} {
		term := newTerm(slowReader{strings.NewReader("192.0.2.44\n")}, nil, nil)
		f.around("")(term)
		term.machine.began = start
		if code := term.run(t.Context(), []string{"set", "add", "vips", "-", "--ttl", "30s"}); code != 0 {
			t.Fatal(code)
		}
		if got := f.ends["192.0.2.44"]; got != start+int64(30*time.Second) {
			t.Errorf("ends at %d, began at %d", got, start)
		}
	}
	if m := thisMachine(); m.began == 0 || m.began > began {
		t.Errorf("this process began at %d, before %d", m.began, began)
	}
}
