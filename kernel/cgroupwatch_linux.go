package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupWatch tells when a cgroup is made or removed in one of the directories that lead to
// those that policies name. It is a hint: whoever is told looks at what there is. The zero value
// tells nothing.
type cgroupWatch struct {
	inotify *os.File
	fd      int
	changed chan struct{}
}

// watchCgroups begins to watch nothing. The caller must Close the watch.
func watchCgroups() (*cgroupWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching cgroups: inotify_init1: %w", err)
	}
	w := &cgroupWatch{os.NewFile(uintptr(fd), "inotify"), fd, make(chan struct{}, 1)}
	go func() {
		for b := make([]byte, 4096); ; {
			if _, err := w.inotify.Read(b); err != nil {
				return
			}
			select {
			case w.changed <- struct{}{}:
			default: // one is waiting
			}
		}
	}()
	return w, nil
}

// Close ends the watch.
func (w *cgroupWatch) Close() error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Close()
}

// add watches the directories from the mount down to each path, as far as they are there. What is
// made below one of them from then on is told.
func (w *cgroupWatch) add(mount string, paths []string) error {
	done := map[string]bool{}
	if w.inotify == nil {
		return nil
	}
	for _, path := range paths {
		dir := mount
		for _, name := range strings.Split(strings.TrimPrefix(path, "/"), "/") {
			if !done[dir] {
				done[dir] = true
				_, err := unix.InotifyAddWatch(w.fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR)
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
					break
				}
				if err != nil {
					return fmt.Errorf("watching the cgroup %s: inotify_add_watch: %w", dir, err)
				}
			}
			dir = filepath.Join(dir, name)
		}
	}
	return nil
}
