// Package fence holds that an address is announced by the node that holds its lease, and by no
// other: three nodes, their etcd, a client and an observer of the segment between them, in
// throw-away network namespaces, and what goes wrong. What is not a test serves the
// demonstration as well.
package fence

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/postern-fw/postern/integration/lab"
)

// Process is one that was started in a namespace.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	once sync.Once
}

// start starts a program, in a namespace if ns is not nil. What it says goes to a file.
func start(ns *lab.Namespace, log, name string, args ...string) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := &Process{cmd: exec.Command(name, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET=")
	in := func(fn func() error) error { return fn() }
	if ns != nil {
		in = ns.Do
	}
	if err := in(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// Kill ends it by SIGKILL, and returns when it is gone.
func (p *Process) Kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
}

// Signal sends one. After SIGSTOP it returns when every thread has stopped: the other CPU's goes on for a moment.
func (p *Process) Signal(s syscall.Signal) error {
	err := p.cmd.Process.Signal(s)
	for end := time.Now().Add(time.Second); err == nil && s == syscall.SIGSTOP && !p.stopped() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return err
}

// stopped says whether all threads are, by proc_pid_stat(5).
func (p *Process) stopped() bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	for _, name := range stats {
		b, _ := os.ReadFile(name)
		if at := bytes.LastIndexByte(b, ')'); at > 0 && at+2 < len(b) && b[at+2] != 'T' && b[at+2] != 't' {
			return false
		}
	}
	return true
}

// Wait returns when it has ended, with its exit code.
func (p *Process) Wait() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Ended says whether it has.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Said is the end of what it said.
func (p *Process) Said() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-4096):])
}

// BuildEtcd builds the etcd server of the module in dir.
func BuildEtcd(dir, out string) error { return build(dir, out) }

func build(dir, out string, flags ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", out}, flags...)...)
	cmd.Dir = dir
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build in %s: %w\n%s", dir, err, bytes.TrimSpace(said))
	}
	return nil
}

// scratch is a directory for logs and data, in memory where there is /dev/shm: etcd waits for
// its disk.
func scratch() (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "postern-fence-")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		dir, err = os.MkdirTemp("", "postern-fence-")
	}
	return dir, err
}

func join(dir string, names ...string) string {
	return filepath.Join(append([]string{dir}, names...)...)
}
