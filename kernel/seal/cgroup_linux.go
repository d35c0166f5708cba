package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

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
