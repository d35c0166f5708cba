package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel"
)

// reloaded is how a reload went.
type reloaded struct {
	status *kernel.Status
	err    error
}

// reloadCount is how often the policy was read again.
type reloadCount struct{ done, failed atomic.Uint64 }

// ask has the loop reload, for whoever asks at the control socket.
func (r *runner) ask(ctx context.Context) (*kernel.Status, error) {
	answer := make(chan reloaded, 1)
	select {
	case r.reloads <- answer:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	got := <-answer
	return got.status, got.err
}

// read reads the file. Its error is about the file alone.
func (r *runner) read() ([]byte, error) {
	text, err := readFile(r.t, r.file)
	var e *exitError
	if errors.As(err, &e) {
		err = e.err
	}
	return text, err
}

// load puts the file in force for the first time.
func (r *runner) load() (err error) {
	if r.text, err = readFile(r.t, r.file); err != nil {
		return err
	}
	if _, err := r.apply(); err != nil {
		return r.t.refusedPolicy(kernel.Source{Name: r.file, Text: r.text}, err)
	}
	return nil
}

func (r *runner) apply() (*kernel.Status, error) {
	s, err := r.t.machine.host.Apply(kernel.Source{Name: r.file, Text: r.text}, kernel.ApplyOptions{})
	if err != nil {
		return nil, err
	}
	for _, w := range s.Warnings {
		r.log.Warn(w)
	}
	r.log.Info(inForce(s, r.t.machine.now()), "file", r.file)
	r.notify("STATUS=" + inForce(s, r.t.machine.now()))
	return s, nil
}

// reload puts the file in force anew, if it has changed or must be anyway. What is wrong
// leaves the policy in force as it is. It tells how it went, and returns it for whoever
// asked.
func (r *runner) reload(anyway bool) (*kernel.Status, error) {
	text, err := r.read()
	if err == nil && !anyway && bytes.Equal(text, r.text) {
		r.unread = ""
		return nil, nil
	}
	if err != nil {
		// Other files of the directory change, too; once is enough to tell.
		if told := err.Error(); anyway || told != r.unread {
			r.unread = told
			r.refuse(err)
		}
		return nil, err
	}
	r.unread, r.text = "", text
	r.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonic()/1000))
	s, err := r.apply()
	if err != nil {
		r.refuse(err)
	} else {
		r.count.done.Add(1)
	}
	r.notify(daemon.SdNotifyReady)
	return s, err
}

func (r *runner) refuse(err error) {
	r.count.failed.Add(1)
	var wrong firewall.Diagnostics
	if errors.As(err, &wrong) {
		fmt.Fprintln(r.t.errs, wrong.Error())
		err = errors.New("it is wrong")
	}
	r.log.Error("not put in force, the policy before stays as it is: "+err.Error(), "file", r.file)
	r.notify("STATUS=" + r.file + " was not put in force, the policy before stays as it is")
}

// notify tells systemd, if that started us.
func (r *runner) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		r.log.Warn("telling systemd: " + err.Error())
	}
}

// watchdog ticks twice as often as systemd wants to hear that we live; never if it does not.
func watchdog() (<-chan time.Time, func()) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return nil, func() {}
	}
	tick := time.NewTicker(every / 2)
	return tick.C, tick.Stop
}

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // it cannot fail with a clock that there is
	return ts.Nano()
}

// newLog logs to w, without times where the journal adds its own.
func newLog(w io.Writer) *slog.Logger {
	journal := os.Getenv("JOURNAL_STREAM") != ""
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if journal && a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}))
}
