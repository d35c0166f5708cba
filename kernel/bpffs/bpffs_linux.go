package bpffs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openBPFFS opens a directory of a bpffs. One that is missing is made, or else nil is returned.
func Open(path string, create bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && path != parent {
		// Directories are made in a bpffs only.
		p, err := Open(parent, create)
		if p == nil {
			return nil, err
		}
		p.Close()
		if !create {
			return nil, nil
		}
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, lacking(err)
		}
		return Open(path, create)
	}
	if err != nil {
		return nil, lacking(err)
	}
	if err := onBPFFS(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lacking says why a directory may be refused.
func lacking(err error) error {
	switch {
	case errors.Is(err, unix.EPERM): // bpf_lookup
		return fmt.Errorf("%w: a bpffs allows no dot in names", err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: it takes root, or the directory's owner", err)
	}
	return err
}

// onBPFFS checks the type of the file system that a directory is on.
func onBPFFS(f *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if int64(st.Type) != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is %w but on a file system of type %#x: mount one (mount -t bpf bpf /sys/fs/bpf); inside "+
			"`ip netns exec`, whose own /sys hides it, use `nsenter --net=/run/netns/NAME` instead", f.Name(), ErrNone, st.Type)
	}
	return nil
}
