package main

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
)

// machine is where policies are put in force: the kernel, in the network namespace of
// this process.
type machine struct {
	host enforcer
	// sockets is the directory of the control sockets.
	sockets string
	// began is the CLOCK_BOOTTIME instant, in nanoseconds, from which a --ttl counts.
	began int64
	now   func() time.Time
}

// enforcer is what the commands use of kernel.Host.
type enforcer interface {
	Cookie() (uint64, error)
	Apply(kernel.Source, kernel.ApplyOptions) (*kernel.Status, error)
	Confirm() error
	Rollback() error
	Flush() error
	Status() (*kernel.Status, error)
	Rules() ([]kernel.Rule, error)
	Sets() ([]kernel.SetInfo, error)
	AddToSet(set string, deadline int64, elements ...[]string) error
	DeleteFromSet(set string, elements ...[]string) (deleted int, err error)
	ListSet(set string) ([]kernel.Element, error)
	Monitor(context.Context, func(*kernel.Event) error) error
	Follow(context.Context, *slog.Logger) error
	Doctor() *kernel.Diagnosis
}

// began is read before main begins, and so before anything is: a process that is frozen
// (SIGSTOP, a cgroup's freezer, a machine that swaps) between here and the moment at
// which the kernel learns of an element must not open the door late, and a time to live
// that were counted from that moment on would.
var began = bootTime()

func thisMachine() machine {
	return machine{host: kernel.Host{}, sockets: control.Dir, began: began, now: time.Now}
}

// bootTime is CLOCK_BOOTTIME in nanoseconds: it counts while the machine sleeps and no
// one can set it.
func bootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // no clock: every deadline has passed
	}
	return ts.Nano()
}

// client finds the `postern run` of this network namespace.
func (m *machine) client() (*control.Client, error) {
	path, err := m.socket()
	if err != nil {
		return nil, err
	}
	return control.Dial(path)
}

// socket is the control socket of this network namespace.
func (m *machine) socket() (string, error) {
	cookie, err := m.host.Cookie()
	if err != nil {
		return "", err
	}
	return control.Path(m.sockets, cookie), nil
}
