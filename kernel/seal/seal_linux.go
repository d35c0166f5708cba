package seal

import (
	"encoding/binary"
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

// Install seals the cgroup. Where its seal is there already, it is adopted, and its program
// exchanged for this one without a gap. The pin of a cgroup that was deleted is replaced.
//
// It fails with an error that matches ErrNoCgroup2, ErrNoBPFFS, ErrForeign, ErrNotSupported,
// or os.ErrPermission without CAP_BPF and CAP_NET_ADMIN.
func (s Seal) Install() error {
	return s.locked(true, func(cgroup *os.File) error {
		p, err := load()
		if err != nil {
			return err
		}
		defer p.Close()
		old, state, err := s.pinned(cgroup)
		if err != nil {
			return err
		}
		if old != nil {
			defer old.Close()
		}
		if state.Sealed {
			if err := old.Update(p); err != nil {
				return fmt.Errorf("exchange the program of %s: %w", s.Pin, err)
			}
			return nil
		}
		l, err := attach(p, cgroup)
		if err != nil {
			return err
		}
		defer l.Close() // what is pinned stays
		if old != nil {
			if err := old.Unpin(); err != nil {
				return fmt.Errorf("remove the pin of a deleted cgroup: %w", err)
			}
		}
		if err := l.Pin(s.Pin); err != nil {
			return fmt.Errorf("pin at %s: %w", s.Pin, err)
		}
		return nil
	})
}

// Remove takes the seal away. That there is none is no error, nor that the cgroup is gone.
// It fails with ErrForeign as Install does.
func (s Seal) Remove() error {
	return s.locked(false, func(cgroup *os.File) error {
		if _, err := os.Stat(s.Pin); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		l, _, err := s.pinned(cgroup)
		if err != nil || l == nil {
			return err
		}
		defer l.Close()
		// Others may hold the link open, and it would go on: the pin is not all of it.
		if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("detach %s: %w", s.Pin, err)
		}
		if err := l.Unpin(); err != nil {
			return fmt.Errorf("remove %s: %w", s.Pin, err)
		}
		return nil
	})
}

// Status reports what is at the pin. It fails with ErrForeign as Install does, and with
// ErrNoCgroup2 where there is no such cgroup (any more).
func (s Seal) Status() (state State, err error) {
	err = s.locked(false, func(cgroup *os.File) error {
		if _, err := os.Stat(s.Pin); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if cgroup == nil {
			return fmt.Errorf("%s: %w: %w", s.Cgroup, ErrNoCgroup2, fs.ErrNotExist)
		}
		l, found, err := s.pinned(cgroup)
		if l != nil {
			l.Close()
		}
		state = found
		return err
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

func openCgroup(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup2, err)
	}
	if err := isOn(f, unix.CGROUP2_SUPER_MAGIC); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: name a directory below the mount of type cgroup2 (mount -t cgroup2 none /sys/fs/cgroup): %w", ErrNoCgroup2, err)
	}
	return f, nil
}

// isOn checks the type of the file system that a file is on.
func isOn(f *os.File, magic int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if int64(st.Type) != magic {
		return fmt.Errorf("%s is on a file system of type %#x, not %#x", f.Name(), st.Type, magic)
	}
	return nil
}

// pinned opens what is at the pin, nil if there is nothing. What it returns is the
// seal of the cgroup, or of one that was deleted; anything else is foreign.
func (s Seal) pinned(cgroup *os.File) (link.Link, State, error) {
	foreign := func(what string, err error) error {
		if err != nil {
			what = fmt.Sprintf("%s: %v", what, err)
		}
		return fmt.Errorf("%s %w: it is %s; remove it, or pin elsewhere", s.Pin, ErrForeign, what)
	}
	if _, err := os.Lstat(s.Pin); errors.Is(err, fs.ErrNotExist) {
		return nil, State{}, nil
	}
	l, err := link.LoadPinnedLink(s.Pin, nil)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return nil, State{}, fmt.Errorf("open %s: %w", s.Pin, err)
	}
	if err != nil {
		return nil, State{Pinned: true}, foreign("no link of eBPF", err)
	}
	sealed, what, err := isSeal(l, cgroup)
	if what != "" || err != nil {
		l.Close()
		return nil, State{Pinned: true}, foreign(what, err)
	}
	return l, State{Pinned: true, Sealed: sealed}, nil
}

// isSeal says whether a link seals the cgroup, or what else it is. The seal of a cgroup
// that was deleted does not, and is nothing else; nor any where cgroup is nil.
func isSeal(l link.Link, cgroup *os.File) (sealed bool, what string, err error) {
	info, err := l.Info()
	if err != nil {
		return false, "a link that cannot be read", err
	}
	c := info.Cgroup()
	if c == nil || ebpf.AttachType(c.AttachType) != ebpf.AttachCGroupSetsockopt {
		return false, fmt.Sprintf("a link of type %v", info.Type), nil
	}
	// Without CAP_SYS_ADMIN the program cannot be looked at, and the place must do.
	if p, err := ebpf.NewProgramFromID(info.Program); err == nil {
		defer p.Close()
		if pi, err := p.Info(); err == nil && pi.Name != programName {
			return false, fmt.Sprintf("a link of the program %q", pi.Name), nil
		}
	}
	if cgroup == nil || c.CgroupId == 0 { // bpf_cgroup_link_auto_detach
		return false, "", nil
	}
	id, err := cgroupID(cgroup)
	switch {
	case err != nil:
		return false, fmt.Sprintf("the seal of cgroup id %d", c.CgroupId), err
	case id != c.CgroupId && alive(cgroup, c.CgroupId):
		return false, fmt.Sprintf("the seal of another cgroup (id %d, not %d)", c.CgroupId, id), nil
	}
	return id == c.CgroupId, "", nil
}

// cgroupID is the number that links tell: the handle of the directory in kernfs.
func cgroupID(cgroup *os.File) (uint64, error) {
	h, _, err := unix.NameToHandleAt(int(cgroup.Fd()), "", unix.AT_EMPTY_PATH)
	if err != nil {
		return 0, fmt.Errorf("id of %s: %w", cgroup.Name(), err)
	}
	if h.Size() != 8 {
		return 0, fmt.Errorf("id of %s has %d bytes, not 8", cgroup.Name(), h.Size())
	}
	return binary.NativeEndian.Uint64(h.Bytes()), nil
}

// alive says whether there is a cgroup with that id. A deleted one keeps its links for a
// while (cgroup_bpf_release is put off to a worker).
func alive(cgroup *os.File, id uint64) bool {
	const fileIDKernfs = 0xfe // FILEID_KERNFS
	fd, err := unix.OpenByHandleAt(int(cgroup.Fd()), unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id)), unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, unix.ESTALE)
}

// Release takes away the seal at a pin, of whatever cgroup. That there is none is no error. It fails with
// ErrForeign where the pin is no seal.
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
	if c := info.Cgroup(); c == nil || ebpf.AttachType(c.AttachType) != ebpf.AttachCGroupSetsockopt {
		return fmt.Errorf("%s %w: it is a link of type %v", pin, ErrForeign, info.Type)
	}
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach %s: %w", pin, err)
	}
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("remove %s: %w", pin, err)
	}
	return nil
}
