package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/bpffs"
)

// hook is one of the kinds, at one hook of one interface.
type hook interface {
	// put attaches the program, or exchanges it for the one that is in force.
	put(*ebpf.Program) error
	// drop takes the attachment away. That there is none is no error.
	drop() error
}

// found is what there is of an attachment.
type found struct {
	State
	tcx    *tcx
	clsact *clsact
}

// Install attaches the program, which stays the caller's and may be closed afterwards. Where the
// attachment is there already, it is adopted, and its program exchanged for this one without
// a gap. The pin of an interface that was deleted is replaced.
//
// It fails with an error that matches ErrNoInterface, ErrNoBPFFS, ErrForeign, ErrNotSupported,
// or os.ErrPermission without CAP_BPF and CAP_NET_ADMIN. What was attached then stays.
func (a Attachment) Install(p *ebpf.Program) error {
	return a.examined(true, func(f *found) error {
		if p.Type() != ebpf.SchedCLS {
			return fmt.Errorf("the program is of type %v: it must be of type %v", p.Type(), ebpf.SchedCLS)
		}
		if f.Name == "" {
			return a.gone(unix.ENODEV)
		}
		var this, other hook = f.tcx, f.clsact
		if a.Kind == Clsact || a.Kind == Auto && f.Kind == Clsact {
			this, other = other, this
		}
		err := this.put(p)
		if a.Kind == Auto && f.Kind == Auto && errors.Is(err, ErrNotSupported) {
			this, other = other, this
			if second := this.put(p); second != nil {
				return fmt.Errorf("%w; %w", err, second)
			}
			err = nil
		}
		if err != nil {
			return err
		}
		if err := other.drop(); err != nil {
			return fmt.Errorf("the program is in force, and the old one still as well: %w", err)
		}
		return nil
	})
}

// Remove takes the attachment away, of either kind. That there is none is no error, nor that
// the interface is gone. It fails with ErrForeign, ErrNoBPFFS and os.ErrPermission as
// Install does.
func (a Attachment) Remove() error {
	return a.examined(false, func(f *found) error {
		return errors.Join(f.tcx.drop(), f.clsact.drop())
	})
}

// Status reports what is at the pin and at the interface, whose absence is no error. It
// fails with ErrForeign, ErrNoBPFFS and os.ErrPermission as Install does.
func (a Attachment) Status() (state State, err error) {
	err = a.examined(false, func(f *found) error { state = f.State; return nil })
	return state, err
}

// List is the attachments that are in the network namespace netns, as NetNS has it: those whose
// pins are in a directory, those of deleted interfaces included, and those of clsact. Their
// Kind is Auto. A directory of a bpffs that is not there has none. Where it is in no bpffs, the
// ones of clsact are returned beside an error that matches ErrNoBPFFS.
func List(dir string, netns int) ([]Attachment, error) {
	all, err := listPins(dir, netns)
	filters, clsactErr := listFilters(dir, netns)
	for _, a := range filters {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	if err := errors.Join(err, clsactErr); err != nil {
		return all, fmt.Errorf("tc: list the attachments: %w", err)
	}
	return all, nil
}

// examined runs fn with what is there, while no other process changes it.
func (a Attachment) examined(create bool, fn func(*found) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("tc: %s: %w", a, err)
		}
	}()
	if err := a.check(); err != nil {
		return err
	}
	pins, unlock, err := a.lock(create)
	if err != nil {
		return err
	}
	defer unlock()
	h, err := rtnetlink(a.NetNS)
	if err != nil {
		return err
	}
	defer h.Close()
	f, err := a.examine(h, pins)
	if err != nil {
		return err
	}
	defer f.tcx.close()
	return fn(f)
}

func (a Attachment) check() error {
	if int(a.Direction) >= len(directions) {
		return errors.New("the direction is neither egress nor ingress")
	}
	if int(a.Kind) >= len(kindNames) {
		return errors.New("the kind is neither auto nor tcx nor clsact")
	}
	if a.Interface <= 0 || int64(a.Interface) > 1<<31-1 {
		return a.gone(fs.ErrInvalid)
	}
	return nil
}

// alone keeps the goroutines apart that have no directory to lock.
var alone sync.Mutex

// lock keeps other processes away, and says whether there are pins to look at.
func (a Attachment) lock(create bool) (pins bool, unlock func(), err error) {
	dir, err := a.openPins(create)
	if err != nil {
		return false, nil, err
	}
	if dir == nil { // There is no pin either.
		alone.Lock()
		return false, alone.Unlock, nil
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		dir.Close()
		return false, nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	return true, func() { dir.Close() }, nil
}

// needsNoPins says whether the attachment can be no pinned one.
func (a Attachment) needsNoPins() bool {
	if a.Kind == Clsact {
		return true
	}
	_, err := a.programs()
	return errors.Is(err, ErrNotSupported)
}

// openPins opens the directory of pins; nil where the bpffs has none, or need not be.
func (a Attachment) openPins(create bool) (f *os.File, err error) {
	if a.Dir == "" {
		err = fmt.Errorf("no directory is named: it is %w", ErrNoBPFFS)
	} else {
		f, err = bpffs.Open(a.Dir, create)
	}
	if errors.Is(err, ErrNoBPFFS) && a.needsNoPins() {
		return nil, nil
	}
	return f, err
}

// examine finds out what there is of either kind.
func (a Attachment) examine(h *netlink.Handle, pins bool) (*found, error) {
	f := &found{}
	l, err := h.LinkByIndex(a.Interface)
	var none netlink.LinkNotFoundError
	switch {
	case err == nil:
		f.Name = l.Attrs().Name
	case !errors.As(err, &none):
		return nil, fmt.Errorf("ask for the interface's name: %w", err)
	}
	if f.clsact, err = a.examineClsact(h); err != nil {
		return nil, err
	}
	f.clsact.name = f.Name
	if f.tcx, err = a.examineTCX(pins); err != nil {
		return nil, err
	}
	f.Pinned = f.tcx.link != nil
	others := f.tcx.programs
	if ours := f.clsact.filter; ours != nil {
		f.Attached, f.Kind, f.Program = true, Clsact, ebpf.ProgramID(ours.Id)
	}
	if i := f.tcx.at; i >= 0 {
		f.Behind = f.Program
		f.Attached, f.Kind, f.Program = true, TCX, others[i].ID
		others = others[:i]
	}
	if f.Attached {
		for _, p := range others {
			f.Before = append(f.Before, p.ID)
		}
	}
	if f.Kind == Clsact {
		f.Before = append(f.Before, f.clsact.before...)
	}
	return f, nil
}
