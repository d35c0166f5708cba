package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// BPFFS mounts a bpffs on a new directory, for what is pinned in a test or a demonstration. The
// caller unmounts it; what is pinned there alone ends then.
func BPFFS() (dir string, unmount func(), err error) {
	if dir, err = os.MkdirTemp("", "postern-bpffs-"); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		os.Remove(dir)
		return "", nil, fmt.Errorf("lab: mount a bpffs on %s: %w", dir, err)
	}
	return dir, func() {
		_ = unix.Unmount(dir, unix.MNT_DETACH)
		_ = os.Remove(dir)
	}, nil
}
