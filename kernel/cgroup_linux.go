package kernel

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// cgroups remembers the paths of cgroups by their numbers.
var cgroups sync.Map

// cgroupPath is the path of a cgroup below the cgroup2 mount; "" for one that cannot be found.
func cgroupPath(id uint64) string {
	if path, ok := cgroups.Load(id); ok {
		return path.(string)
	}
	path, err := findCgroup(id)
	if err != nil {
		return ""
	}
	cgroups.Store(id, path)
	return path
}

// resolveCgroups tells the generation's programs which of the cgroups that the policy names there are,
// and has w, if it is not nil, watch those that may come.
func (g *generation) resolveCgroups(w *cgroupWatch) error {
	if !g.engine.AsksCgroups() {
		return nil
	}
	p, err := g.parse()
	if err != nil {
		return err
	}
	mount, err := cgroup2Mount()
	if err != nil {
		mount = "" // there are none
	}
	if w != nil && mount != "" {
		paths, err := g.engine.Cgroups(p)
		if err == nil {
			err = w.add(mount, paths)
		}
		if err != nil {
			return err
		}
	}
	return g.engine.ResolveCgroups(p, mount)
}

// followCgroups does so again, since one that is made anew has another number.
func (h Host) followCgroups(w *cgroupWatch) error {
	return h.use(func(_ *session, st state) error {
		for _, g := range []*generation{st.current, st.before} {
			if g != nil {
				if err := g.resolveCgroups(w); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// findCgroup opens the directory by its handle, which the number is.
func findCgroup(id uint64) (string, error) {
	mount, err := cgroup2Mount()
	if err != nil {
		return "", err
	}
	dir, err := os.Open(mount)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	const fileIDKernfs = 0xfe // FILEID_KERNFS
	fd, err := unix.OpenByHandleAt(int(dir.Fd()), unix.NewFileHandle(fileIDKernfs, binary.NativeEndian.AppendUint64(nil, id)), unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return "", err
	}
	if path = strings.TrimPrefix(path, mount); path == "" {
		path = "/"
	}
	return path, nil
}
