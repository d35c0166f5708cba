package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/internal/control"
)

const (
	onePolicy   = "policy: one\nguard: [{interfaces: [eth0]}]\n"
	otherPolicy = "policy: other\nguard: [{interfaces: [eth0, eth1]}]\n"
	badPolicy   = "policy: bad\nguard: [{interfaces: [eth0]}]\nrules: [{name: r, match: arp.opcod == 1, verdict: drop}]\n"
)

// output is a buffer that several may write and read.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *output) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func (w *output) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// running is a `postern run` over a fake.
type running struct {
	*fake
	t             *testing.T
	file, sockets string
	metrics       string // the UNIX socket of --metrics
	out, errs     output
	notes         chan string // what systemd was told
	end           context.CancelFunc
	code          chan int
}

// startRun returns when it is ready.
func startRun(t *testing.T, policy string, args ...string) *running {
	t.Helper()
	dir := t.TempDir()
	r := &running{fake: newFake(), t: t, file: filepath.Join(dir, "policy.yaml"), sockets: filepath.Join(dir, "run"),
		notes: make(chan string, 1000), code: make(chan int, 1)}
	for _, arg := range args {
		if path, ok := strings.CutPrefix(arg, "unix:"); ok {
			r.metrics = path
		}
	}
	r.write(policy)
	r.systemd(filepath.Join(dir, "notify"))
	ctx, cancel := context.WithCancel(t.Context())
	r.end = cancel
	term := newTerm(strings.NewReader(""), &r.out, &r.errs)
	r.around(r.sockets)(term)
	go func() { r.code <- term.run(ctx, append([]string{"run", "-f", r.file}, args...)) }()
	t.Cleanup(func() {
		r.end()
		r.code <- <-r.code
	})
	r.told("READY=1")
	return r
}

// systemd listens as systemd does.
func (r *running) systemd(path string) {
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	r.t.Setenv("NOTIFY_SOCKET", path)
	go func() {
		for b := make([]byte, 4096); ; {
			n, err := l.Read(b)
			if err != nil {
				return
			}
			r.notes <- string(b[:n])
		}
	}()
}

// told waits until systemd was told something that begins so.
func (r *running) told(note string) string {
	r.t.Helper()
	for {
		select {
		case got := <-r.notes:
			if strings.HasPrefix(got, note) {
				return got
			}
		case code := <-r.code:
			r.code <- code // for whoever waits for the end
			select {
			case got := <-r.notes: // it was told before
				if strings.HasPrefix(got, note) {
					return got
				}
			case <-time.After(time.Second):
				r.t.Fatalf("ended with %d: %s", code, r.errs.String())
			}
		case <-time.After(10 * time.Second):
			r.t.Fatalf("systemd was never told %q; it said %s", note, r.errs.String())
		}
	}
}

func (r *running) write(policy string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(policy), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// inForce is the policy's name, and how often one was put in force.
func (r *running) inForce() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%s after %d", r.status.Policy, r.applied)
}

func (r *running) must(policy string) {
	r.t.Helper()
	if got := r.inForce(); got != policy {
		r.t.Errorf("%s, want %s; it said\n%s", got, policy, r.errs.String())
	}
}

func (r *running) client() *control.Client {
	r.t.Helper()
	c, err := control.Dial(control.Path(r.sockets, fakeCookie))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	return c
}

// command runs another command of the same machine's.
func (r *running) command(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	term := newTerm(strings.NewReader(""), &o, &e)
	r.around(r.sockets)(term)
	code = term.run(r.t.Context(), args)
	return code, o.String(), e.String()
}

// The ways in which a file changes.
func TestRunReloads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(r *running, policy string) error
	}{
		{"written in place", func(r *running, policy string) error { return os.WriteFile(r.file, []byte(policy), 0o644) }},
		{"renamed over", func(r *running, policy string) error {
			return renameOver(r.file, func(name string) error { return os.WriteFile(name, []byte(policy), 0o644) })
		}},
		{"taken away and made anew", func(r *running, policy string) error {
			if err := os.Remove(r.file); err != nil {
				return err
			}
			return os.WriteFile(r.file, []byte(policy), 0o644)
		}},
		{"a symbolic link elsewhere", func(r *running, policy string) error {
			elsewhere := filepath.Join(r.t.TempDir(), "policy.yaml")
			if err := os.WriteFile(elsewhere, []byte(policy), 0o644); err != nil {
				return err
			}
			return renameOver(r.file, func(name string) error { return os.Symlink(elsewhere, name) })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRun(t, onePolicy)
			r.must("one after 1")
			if err := tt.change(r, otherPolicy); err != nil {
				t.Fatal(err)
			}
			if note := r.told("RELOADING=1"); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=[1-9]\d*$`).MatchString(note) {
				t.Errorf("%q", note)
			}
			r.told("STATUS=other is in force: 2 of 2 interfaces guarded")
			r.told("READY=1")
			r.must("other after 2")
		})
	}
}

func renameOver(file string, make func(name string) error) error {
	next := file + "~"
	if err := make(next); err != nil {
		return err
	}
	return os.Rename(next, file)
}

// The file behind a symbolic link is watched too.
func TestRunFollowsLink(t *testing.T) {
	r := startRun(t, onePolicy)
	target := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(target, []byte(otherPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := renameOver(r.file, func(name string) error { return os.Symlink(target, name) }); err != nil {
		t.Fatal(err)
	}
	r.told("STATUS=other")
	if err := renameOver(target, func(name string) error { return os.WriteFile(name, []byte(onePolicy), 0o644) }); err != nil {
		t.Fatal(err)
	}
	r.told("STATUS=one")
	r.must("one after 3")
}

// A file that is wrong, or gone, is reported and leaves the policy in force.
func TestRunRefusesReload(t *testing.T) {
	r := startRun(t, onePolicy, "--metrics", "unix:"+filepath.Join(t.TempDir(), "metrics"))
	r.write(badPolicy)
	r.told("RELOADING=1")
	r.told("STATUS=" + r.file + " was not put in force, the policy before stays as it is")
	r.told("READY=1")
	r.must("one after 1")
	if s := r.errs.String(); !strings.Contains(s, `policy.yaml:3:26: error: unknown field "arp.opcod"`) || !strings.Contains(s, "the policy before stays as it is") {
		t.Error(s)
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.told("STATUS=" + r.file + " was not put in force")
	// Other files of the directory are no reason to say so again.
	if err := os.WriteFile(r.file+".bak", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.write(onePolicy)
	r.told("STATUS=one is in force")
	r.told("READY=1")
	r.must("one after 2")
	if n := strings.Count(r.errs.String(), "no such file"); n != 1 {
		t.Errorf("told %d times that the file is gone", n)
	}
	if got := r.scrape(); !strings.Contains(got, "postern_reloads_failed_total 2\n") || !strings.Contains(got, "postern_reloads_total 1\n") {
		t.Error(got)
	}
}

func TestRunHangup(t *testing.T) {
	r := startRun(t, onePolicy)
	if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.told("RELOADING=1")
	r.told("READY=1")
	r.must("one after 2") // though the file did not change
}

func TestRunControl(t *testing.T) {
	r := startRun(t, onePolicy)
	c := r.client()
	if s, err := c.Status(t.Context()); err != nil || s.Policy != "one" {
		t.Errorf("%+v, %v", s, err)
	}
	r.write(otherPolicy)
	if s, err := c.Reload(t.Context()); err != nil || s.Policy != "other" {
		t.Errorf("%+v, %v", s, err)
	}
	r.write(badPolicy)
	if s, err := c.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "policy.yaml:3:26: error: unknown field") {
		t.Errorf("%+v, %v", s, err)
	}
	if code, out, _ := r.command("status"); code != 0 || !strings.Contains(out, "run     process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("%d\n%s", code, out)
	}
	if code, _, errs := r.command("run", "-f", r.file); code != exitMachine || !strings.Contains(errs, fmt.Sprintf("process %d is the postern run of this network namespace", os.Getpid())) {
		t.Errorf("a second one: %d: %s", code, errs)
	}
	if code, _, errs := r.command("flush"); code != 0 || !strings.Contains(errs, "(postern run) puts its own policy in force again") {
		t.Errorf("flush: %d: %s", code, errs)
	}
}

func TestRunEnds(t *testing.T) {
	for _, flush := range []bool{false, true} {
		var args []string
		if flush {
			args = append(args, "--flush-on-exit")
		}
		r := startRun(t, onePolicy, args...)
		path := control.Path(r.sockets, fakeCookie)
		r.end()
		r.told("STOPPING=1")
		code := <-r.code
		r.code <- code
		if s, _ := r.Status(); code != 0 || s.Enforcing == flush {
			t.Errorf("flush-on-exit %t: %d, enforcing %t: %s", flush, code, s.Enforcing, r.errs.String())
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the control socket is left behind: %v", err)
		}
	}
}

// What cannot begin leaves nothing.
func TestRunRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(badPolicy), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		errs string
	}{
		{"-f " + file, exitNo, `policy.yaml:3:26: error: unknown field "arp.opcod"`},
		{"-f " + file + ".no", exitUsage, "no such file"},
		{"-f -", exitUsage, "standard input cannot be read again"},
		{"-f " + file + " --metrics 192.0.2.1:9477", exitUsage, "192.0.2.1:9477 is not on the loopback interface"},
		{"-f " + file + " --metrics :9477", exitUsage, "is not on the loopback interface"},
		{"-f " + file + " --metrics 9477", exitUsage, "write host:port"},
		{"-f " + file + " --metrics unix:/nonexistent/metrics", exitMachine, "no such file"},
	} {
		f, sockets := newFake(), t.TempDir()
		var out, errs output
		term := newTerm(nil, &out, &errs)
		f.around(sockets)(term)
		if code := term.run(t.Context(), append([]string{"run"}, strings.Fields(tt.args)...)); code != tt.code || !strings.Contains(errs.String(), tt.errs) || f.applied != 0 {
			t.Errorf("%s: %d: %s", tt.args, code, errs.String())
		}
		if left, _ := filepath.Glob(filepath.Join(sockets, "*.sock")); len(left) > 0 {
			t.Errorf("%s: %v is left behind", tt.args, left)
		}
	}
}

func TestRunWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	r := startRun(t, onePolicy)
	r.told("WATCHDOG=1")
	r.told("WATCHDOG=1")
}
