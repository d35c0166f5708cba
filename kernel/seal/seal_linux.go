package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/bpffs"
)

// Install seals the cgroup. Where its seal is there already, it is adopted, and its programs
// exchanged for these without a gap; what of it is missing is added. The pins of a cgroup that
// was deleted are replaced. Kernels that refuse the program for 32-bit calls (State.Open32) get
// the other one.
//
// It fails with an error that matches ErrNoCgroup2, ErrNoBPFFS, ErrForeign, ErrNotSupported,
// or os.ErrPermission without CAP_BPF and CAP_NET_ADMIN. The program for 32-bit calls wants CAP_PERFMON too.
func (s Seal) Install() error {
	return s.locked(true, func(cgroup *os.File) error {
		var ready []*half
		for _, h := range s.halves() {
			defer h.close()
			err := h.prepare(cgroup)
			if h.optional && errors.Is(err, ErrNotSupported) {
				continue
			}
			if err != nil {
				return err
			}
			ready = append(ready, h)
		}
		for _, h := range ready {
			if err := h.install(cgroup); err != nil && !(h.optional && errors.Is(err, ErrNotSupported)) {
				return err
			}
		}
		return nil
	})
}

// Remove takes the seal away. That there is none is no error, nor that the cgroup is gone.
// It fails with ErrForeign as Install does.
func (s Seal) Remove() error {
	return s.locked(false, func(cgroup *os.File) (err error) {
		for _, h := range s.halves() {
			err = errors.Join(err, h.remove(cgroup))
		}
		return err
	})
}

// Status reports what is at the pins. It fails with ErrForeign as Install does, and with
// ErrNoCgroup2 where there is no such cgroup (any more).
func (s Seal) Status() (state State, err error) {
	err = s.locked(false, func(cgroup *os.File) error {
		var sealed []bool
		for _, h := range s.halves() {
			defer h.close()
			if err := h.open(cgroup); err != nil {
				return err
			}
			state.Pinned = state.Pinned || h.old != nil
			sealed = append(sealed, h.sealed)
		}
		if state.Pinned && cgroup == nil {
			return fmt.Errorf("%s: %w: %w", s.Cgroup, ErrNoCgroup2, fs.ErrNotExist)
		}
		if state.Sealed = sealed[0]; state.Sealed {
			state.Open32 = open32(sealed[1])
		}
		return nil
	})
	return state, err
}

// locked opens the cgroup and runs fn while no other process changes what is pinned in
// the same directory. The cgroup may be missing, and then is nil, unless it is needed.
func (s Seal) locked(needed bool, fn func(cgroup *os.File) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("seal of cgroup %s: %w", s.Cgroup, err)
		}
	}()
	cgroup, err := openCgroup(s.Cgroup)
	if err != nil && (needed || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if cgroup != nil {
		defer cgroup.Close()
	}
	dir, err := bpffs.Open(filepath.Dir(s.Pin), needed)
	if err != nil || dir == nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	return fn(cgroup)
}

// Release takes away what is at one of the Pins of a seal, of whatever cgroup. That there is nothing is no
// error. It fails with ErrForeign where it is no seal's.
func Release(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("seal at %s: %w", pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return fmt.Errorf("seal at %s: %w", pin, err)
	}
	c := info.Cgroup()
	if c == nil || ebpf.AttachType(c.AttachType) != ebpf.AttachCGroupSetsockopt && ebpf.AttachType(c.AttachType) != ebpf.AttachLSMCgroup {
		return fmt.Errorf("%s %w: it is a link of type %v", pin, ErrForeign, info.Type)
	}
	return detach(l, pin)
}
