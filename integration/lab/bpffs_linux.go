package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const bpffsPrefix = "postern-bpffs-"

// BPFFS mounts a bpffs on a new directory, for what is pinned in a test or a demonstration. The
// caller unmounts it; what is pinned there alone ends then. Those of processes that were killed
// before they could are taken away as well.
func BPFFS() (dir string, unmount func(), err error) {
	removeStale()
	if dir, err = os.MkdirTemp("", fmt.Sprintf("%sof-%d-", bpffsPrefix, os.Getpid())); err != nil {
		return "", nil, err
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, "mode=0700"); err != nil {
		os.Remove(dir)
		return "", nil, fmt.Errorf("lab: mount a bpffs on %s: %w", dir, err)
	}
	return dir, func() { remove(dir) }, nil
}

func remove(dir string) {
	_ = unix.Unmount(dir, unix.MNT_DETACH)
	_ = os.Remove(dir)
}

func removeStale() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), bpffsPrefix+"of-*"))
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), bpffsPrefix+"of-"), "-")
		if pid, err := strconv.Atoi(owner); err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			remove(dir)
		}
	}
}
