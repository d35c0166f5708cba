package tc

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/bpffs"
)

// Install attaches the program, which stays the caller's and may be closed afterwards. Where the
// attachment is there already, it is adopted, and its program exchanged for this one without
// a gap. The pin of an interface that was deleted is replaced.
//
// It fails with an error that matches ErrNoInterface, ErrNoBPFFS, ErrForeign, ErrNotSupported,
// or os.ErrPermission without CAP_BPF and CAP_NET_ADMIN. What was attached then stays.
func (a Attachment) Install(p *ebpf.Program) error {
	return a.locked(true, func() error {
		if p.Type() != ebpf.SchedCLS {
			return fmt.Errorf("the program is of type %v: it must be of type %v", p.Type(), ebpf.SchedCLS)
		}
		old, state, err := a.examine()
		if err != nil {
			return err
		}
		if old != nil {
			defer old.Close()
		}
		if state.Name == "" {
			return a.gone(unix.ENODEV)
		}
		if state.Attached {
			return a.exchange(old, p)
		}
		l, err := a.attach(p)
		if err != nil {
			return err
		}
		defer l.Close() // what is pinned stays
		if old != nil {
			if err := old.Unpin(); err != nil {
				return fmt.Errorf("remove the pin of a deleted interface: %w", err)
			}
		}
		if err := l.Pin(a.Pin()); err != nil {
			return fmt.Errorf("pin at %s: %w", a.Pin(), err)
		}
		return nil
	})
}

// Remove takes the attachment away. That there is none is no error, nor that the interface
// is gone. It fails with ErrForeign, ErrNoBPFFS and os.ErrPermission as Install does.
func (a Attachment) Remove() error {
	return a.locked(false, func() error {
		l, _, err := a.examine()
		if err != nil || l == nil {
			return err
		}
		defer l.Close()
		// Others may hold the link open, and it would go on: the pin is not all of it.
		if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("detach %s: %w", a.Pin(), err)
		}
		if err := l.Unpin(); err != nil {
			return fmt.Errorf("remove %s: %w", a.Pin(), err)
		}
		return nil
	})
}

// Status reports what is at the pin and at the interface, whose absence is no error. It
// fails with ErrForeign, ErrNoBPFFS, ErrNotSupported and os.ErrPermission as Install does.
func (a Attachment) Status() (state State, err error) {
	err = a.locked(false, func() error {
		l, found, err := a.examine()
		if l != nil {
			l.Close()
		}
		state = found
		return err
	})
	return state, err
}

// List is the attachments whose pins are in a directory, those of deleted interfaces
// included. netns is for their NetNS. It fails with ErrNoBPFFS; a directory of
// a bpffs that is not there has none.
func List(dir string, netns int) (found []Attachment, err error) {
	f, err := bpffs.Open(dir, false)
	if err != nil {
		return nil, fmt.Errorf("tc: list the pins: %w", err)
	}
	if f == nil {
		return nil, nil
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("tc: list the pins: %w", err)
	}
	for _, name := range names {
		if a, ok := parsePin(dir, name, netns); ok {
			found = append(found, a)
		}
	}
	return found, nil
}

// locked runs fn while no other process changes what is pinned in the directory.
func (a Attachment) locked(create bool, fn func() error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("tc: %s: %w", a, err)
		}
	}()
	if int(a.Direction) >= len(directions) {
		return errors.New("the direction is neither egress nor ingress")
	}
	if a.Interface <= 0 || int64(a.Interface) > 1<<31-1 {
		return a.gone(fs.ErrInvalid)
	}
	dir, err := bpffs.Open(a.Dir, create)
	if err != nil {
		return err
	}
	if dir != nil { // else there is no pin either
		defer dir.Close()
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
			return fmt.Errorf("lock %s: %w", dir.Name(), err)
		}
	}
	return fn()
}
