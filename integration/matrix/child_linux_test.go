package matrix

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/i386"
)

// The test binary is its own child, which sends what it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("MATRIX_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// How a child comes by its sockets. Its first descriptor, 3, is the network namespace
// to open them in, the first of those that it inherits, or the UNIX socket they come by.
const (
	opens    = "opens"
	opens32  = "opens, by 32-bit system calls"
	ring32   = "opens, by an io_uring of a 32-bit system call"
	inherits = "inherits"
	isPassed = "is passed"
)

// hello is what a child is told first. It answers with an error, or "", for each path.
type hello struct {
	How   string
	Index int
	Name  string
	MAC   [6]byte
}

// order is what it is told to send by the path of a number, and report the answer.
type order struct {
	Path  int
	Batch [][]byte
}

type report struct {
	Unsendable []bool
	Err        string
}

// child is one, seen from the parent.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	orders *gob.Encoder
	report *gob.Decoder
	// refused is by path; "" where a socket was opened.
	refused []string
}

// startChild runs a child in a cgroup.
func (w *world) startChild(t testing.TB, how, cgroup string, files ...*os.File) *child {
	t.Helper()
	dir, err := os.Open(cgroup)
	must(t, err)
	defer dir.Close()
	c := &child{cmd: exec.Command("/proc/self/exe")}
	c.cmd.Env = append(os.Environ(), "MATRIX_CHILD=yes", "GORACE=atexit_sleep_ms=0")
	c.cmd.ExtraFiles, c.cmd.Stderr = files, os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	c.stdin, err = c.cmd.StdinPipe()
	must(t, err)
	stdout, err := c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	t.Cleanup(func() { c.stop(t) })
	c.orders, c.report = gob.NewEncoder(c.stdin), gob.NewDecoder(stdout)
	must(t, c.orders.Encode(hello{how, w.near.index, w.near.name, w.near.mac}))
	return c
}

// opened waits for the answer to hello.
func (c *child) opened(t testing.TB) {
	t.Helper()
	must(t, c.report.Decode(&c.refused))
}

func (c *child) stop(t testing.TB) {
	t.Helper()
	if c.cmd == nil {
		return
	}
	c.stdin.Close()
	must(t, c.cmd.Wait())
	c.cmd = nil
}

// sender is the path of a number, as the child uses it.
func (c *child) sender(i int) *sender {
	return &sender{path: everyPath()[i], close: func() {}, send: func(batch [][]byte) ([]bool, error) {
		var r report
		err := c.orders.Encode(order{i, batch})
		if err == nil {
			err = c.report.Decode(&r)
		}
		if err == nil && r.Err != "" {
			err = errors.New(r.Err)
		}
		return r.Unsendable, err
	}}
}

// serve is the child's main function.
func serve() error {
	runtime.LockOSThread()
	orders, reports := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	var h hello
	if err := orders.Decode(&h); err != nil {
		return err
	}
	senders, refused, err := h.senders()
	if err != nil {
		return err
	}
	if err := reports.Encode(refused); err != nil {
		return err
	}
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			closeAll(senders)
			return nil
		} else if err != nil {
			return err
		}
		var r report
		var err error
		if r.Unsendable, err = senders[o.Path].send(o.Batch); err != nil {
			r.Err = err.Error()
		}
		if err := reports.Encode(r); err != nil {
			return err
		}
	}
}

// senders are of all paths, or of those that sockets are given for.
func (h hello) senders() (list []*sender, refused []string, err error) {
	const first = 3
	d := device{h.Index, h.Name, h.MAC}
	switch h.How {
	case opens32:
		setsockopt = i386.Setsockopt
	case ring32:
		r, err := newURing(i386.Setup)
		if err != nil {
			return nil, nil, err
		}
		setsockopt = r.setsockopt
	}
	if h.How == opens || h.How == opens32 || h.How == ring32 {
		if err := unix.Setns(first, unix.CLONE_NEWNET); err != nil {
			return nil, nil, err
		}
		for _, p := range everyPath() {
			s, err := p.open(d)
			why := ""
			if err != nil {
				why = err.Error()
			}
			list, refused = append(list, s), append(refused, why)
		}
		return list, refused, nil
	}
	given := make([]int, len(paths()))
	for i := range given {
		given[i] = first + i
	}
	if h.How == isPassed {
		if given, err = receiveRights(first); err != nil {
			return nil, nil, err
		}
	}
	for i, p := range paths() {
		s, err := p.over(given[i], d)
		if err != nil {
			return nil, nil, err
		}
		list, refused = append(list, s), append(refused, "")
	}
	return list, refused, nil
}

// receiveRights receives a descriptor for each path over a UNIX socket.
func receiveRights(socket int) ([]int, error) {
	rights := make([]byte, unix.CmsgSpace(4*len(paths())))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), rights, 0)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages, %v", len(messages), err)
	}
	return unix.ParseUnixRights(&messages[0])
}

// pass sends descriptors over a UNIX socket.
func pass(socket int, files []*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	return unix.Sendmsg(socket, []byte{0}, unix.UnixRights(fds...), nil, 0)
}

// everyPath is paths, and AF_XDP.
func everyPath() []path {
	return append(slices.Clone(paths()), path{call: callXDP, typ: unix.SOCK_RAW})
}
