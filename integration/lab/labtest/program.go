//go:build linux

package labtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/postern-fw/postern/integration/lab"
)

// Patience is how long a program may take to do what it always does: it bounds
// a failure, not a success.
const Patience = 20 * time.Second

// Program is one that runs in a namespace.
type Program struct {
	name string
	cmd  *exec.Cmd
	out  transcript
	done chan struct{} // closed when it has ended
}

// transcript is what a program said, on standard output and error.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *transcript) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Tool finds a program. Where AppArmor confines it to the directories of the
// machine's own service, the tests, which keep to temporary ones, leave it alone.
func Tool(t testing.TB, name, debian string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		path, err := exec.LookPath(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		profiles, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(profiles)) {
			if profile := strings.TrimSuffix(line, " (enforce)\n"); profile != line && filepath.Base(profile) == name {
				Cannot(t, fmt.Sprintf("AppArmor's profile %s keeps the tool %s from temporary directories: unload it, or run this in a container", profile, path))
			}
		}
		return path
	}
	Cannot(t, fmt.Sprintf("needs the tool %s: apt-get install %s", name, debian))
	return ""
}

// Start runs a program in namespace i, in the foreground, until the test ends. Nothing
// comes on its standard input, nor does that end: some take either for a key.
// If this process is killed, the program is as well, and with it whatever it started,
// since it is the first of a PID namespace.
func Start(t testing.TB, p *lab.Pair, i int, env []string, path string, args ...string) *Program {
	t.Helper()
	in, silence, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	g := &Program{name: filepath.Base(path), cmd: exec.Command(path, args...), done: make(chan struct{})}
	g.cmd.Stdin, g.cmd.Stdout, g.cmd.Stderr = in, &g.out, &g.out
	g.cmd.Env = append(os.Environ(), env...)
	// Pdeathsig looks at the thread that started it, which Do ends when its
	// function returns: so that waits for the program.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID}
	started := make(chan error, 1)
	go func() {
		defer close(g.done)
		err := p.Do(i, func() error {
			err := g.cmd.Start()
			started <- err
			if err == nil {
				_ = g.cmd.Wait() // ProcessState has it
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	err = <-started
	t.Cleanup(func() {
		in.Close()
		silence.Close()
		if err == nil && t.Failed() {
			t.Logf("%s said:\n%s", g.name, &g.out)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Kill)
	return g
}

// Kill ends the program, if it still runs.
func (g *Program) Kill() {
	_ = g.cmd.Process.Kill() // it may have ended
	<-g.done
}

// CPU is the processor time that it has used, in both modes.
func (g *Program) CPU(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc(5): utime and stime are the 14th and 15th field; the 2nd ends with a parenthesis.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

// Signal sends it a signal.
func (g *Program) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("%s: %v", g.name, err)
	}
}

// Says waits until the program has said text.
func (g *Program) Says(t testing.TB, text string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !g.Said(text); time.Sleep(5 * time.Millisecond) {
		select {
		case <-g.done:
			if !g.Said(text) {
				t.Fatalf("%s ended, %v, without saying %q", g.name, g.cmd.ProcessState, text)
			}
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has not said %q after %v", g.name, text, Patience)
		}
	}
}

// Output is what it said so far, on standard output and error.
func (g *Program) Output() string { return g.out.String() }

// Said tells whether it has said text.
func (g *Program) Said(text string) bool { return strings.Contains(g.out.String(), text) }

// Ended tells whether it has ended.
func (g *Program) Ended() bool {
	select {
	case <-g.done:
		return true
	default:
		return false
	}
}

// Ends waits for the program and gives its exit code.
func (g *Program) Ends(t testing.TB) int {
	t.Helper()
	select {
	case <-g.done:
		return g.cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		t.Fatalf("%s still runs after %v", g.name, Patience)
		return 0
	}
}

// Write makes a file in dir.
func Write(t testing.TB, dir, name string, perm os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), perm); err != nil {
		t.Fatal(err)
	}
	return path
}
