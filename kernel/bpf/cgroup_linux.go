package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// Cgroups are the paths below the cgroup2 mount that the policy asks for now, in its rules and
// in the sets that it looks sender.cgroup up in.
func (e *Engine) Cgroups(p *firewall.Policy) (paths []string, err error) {
	use, err := cgroupsOf(p)
	if err != nil {
		return nil, err
	}
	paths = use.paths
	for _, part := range use.parts {
		if err := e.UpdateSet(part.set, func(u *SetUpdate) error {
			members, err := u.List()
			for _, m := range members {
				paths = append(paths, string(m.Parts[part.part].Lo.Bytes))
			}
			return err
		}); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// AsksCgroups says whether the policy asks for the sender's cgroup.
func (e *Engine) AsksCgroups() bool { return e.maps[mapCgroups] != nil }

// ResolveCgroups tells the program which of the cgroups that the policy asks for are there,
// below the directory where the cgroup2 file system is mounted, "" for none. It is to be called before the
// program is attached, and again when one of them comes or goes, and when a set of paths
// was added to: until then, a cgroup that is new equals none of the policy's.
func (e *Engine) ResolveCgroups(p *firewall.Policy, mount string) error {
	if e.maps[mapCgroups] == nil {
		return nil // the policy does not ask
	}
	paths, err := e.Cgroups(p)
	if err != nil {
		return err
	}
	there := map[uint64]string{}
	for _, name := range paths {
		if mount == "" || !path.IsAbs(name) || path.Clean(name) != name || len(name) > cgroupRoom-2 {
			continue // no cgroup has that path
		}
		id, err := cgroupID(path.Join(mount, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("the number of the cgroup %s: %w", path.Join(mount, name), err)
		}
		there[id] = name
	}
	return e.setCgroups(there)
}

// setCgroups makes mapCgroups say what there is.
func (e *Engine) setCgroups(there map[uint64]string) error {
	m := e.maps[mapCgroups]
	for id, name := range there {
		val := binary.NativeEndian.AppendUint64(make([]byte, 0, cgroupBytes), uint64(len(name)))
		val = append(val, name...)
		if err := m.Put(id, val[:cgroupBytes]); err != nil {
			return fmt.Errorf("telling the program of the cgroup %s (%d at most): %w", name, m.MaxEntries(), err)
		}
	}
	var gone []uint64
	var id uint64
	val := make([]byte, cgroupBytes)
	it := m.Iterate()
	for it.Next(&id, &val) {
		if _, ok := there[id]; !ok {
			gone = append(gone, id)
		}
	}
	err := it.Err()
	for _, id := range gone {
		if e := m.Delete(id); !errors.Is(e, ebpf.ErrKeyNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return fmt.Errorf("telling the program of cgroups that are gone: %w", err)
	}
	return nil
}

// cgroupID is the number of the cgroup at a directory: its handle in kernfs.
func cgroupID(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return 0, fmt.Errorf("the file system is of type %#x, not cgroup2", st.Type)
	}
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return 0, err
	}
	if h.Size() != 8 {
		return 0, fmt.Errorf("its handle has %d bytes, not 8", h.Size())
	}
	return binary.NativeEndian.Uint64(h.Bytes()), nil
}
