package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/bpffs"
)

// DefaultRoot is where Host keeps its pins unless told otherwise.
const DefaultRoot = "/sys/fs/bpf/postern"

// What is in a namespace's directory: a directory for each generation, symbolic links to two of
// them, a directory that is there while the hooks may not be as the links say, and
// directories of package tc's and seal's pins. A bpffs allows no dots in names.
const (
	nameCurrent    = "current"
	nameBefore     = "before"
	nameUnfinished = "unfinished"
	nameLinks      = "links"
	nameSeals      = "seals"
	nothing        = "nothing" // what nameBefore leads to where there was no policy
)

// session is the exclusive use of a namespace's directory.
type session struct {
	Host
	dir  string
	lock *os.File // nil if there is no directory
}

// enter locks the namespace's directory, which is made if create is true. The caller must
// leave. Where nothing was ever enforced, there is no directory, and s.lock is nil.
func (h Host) enter(create bool) (s *session, err error) {
	// The zero NetNS is the calling thread's.
	runtime.LockOSThread()
	s = &session{Host: h}
	defer func() {
		if err != nil {
			s.leave()
		}
	}()
	if err := rights(); err != nil {
		return s, err
	}
	if s.dir, err = h.directory(); err != nil {
		return s, err
	}
	if s.lock, err = bpffs.Open(s.dir, create); err != nil || s.lock == nil {
		return s, err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX); err != nil {
		return s, fmt.Errorf("lock %s: %w", s.dir, err)
	}
	// It may have been removed while we waited.
	var held, now unix.Stat_t
	if unix.Fstat(int(s.lock.Fd()), &held) != nil || unix.Stat(s.dir, &now) != nil || held.Ino != now.Ino {
		s.leave()
		return h.enter(create)
	}
	return s, nil
}

func (s *session) leave() {
	if s.lock != nil {
		s.lock.Close()
		s.lock = nil
	}
	runtime.UnlockOSThread()
}

// rights says which of the thread's are missing. CAP_SYS_ADMIN stands for the two that were once
// part of it (bpf_capable, perfmon_capable).
func rights() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("asking for this process's rights: %w", err)
	}
	has := func(c uint) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	for _, c := range []struct {
		number uint
		name   string
		old    bool
	}{{unix.CAP_BPF, "CAP_BPF", true}, {unix.CAP_PERFMON, "CAP_PERFMON", true}, {unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", false}} {
		if !has(c.number) && !(c.old && has(unix.CAP_SYS_ADMIN)) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: enforcement in the kernel takes root; this process has no %s", fs.ErrPermission, strings.Join(missing, ", "))
	}
	return nil
}

// directory is the namespace's.
func (h Host) directory() (string, error) {
	root := h.Root
	if root == "" {
		root = DefaultRoot
	}
	cookie, err := h.Cookie()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "net-"+strconv.FormatUint(cookie, 10)), nil
}

// Cookie is the number of the network namespace, which no other gets until the machine is
// started anew (SO_NETNS_COOKIE, Linux 5.14).
func (h Host) Cookie() (cookie uint64, err error) {
	err = h.inNetNS(func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		defer unix.Close(fd)
		if cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			return fmt.Errorf("the cookie of the network namespace (Linux 5.14): %w", err)
		}
		return nil
	})
	return cookie, err
}

// inNetNS runs fn on a thread in the network namespace.
func (h Host) inNetNS(fn func() error) error {
	if h.NetNS == 0 {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends, so that nothing else runs in the wrong namespace.
		runtime.LockOSThread()
		if err := netns.Set(netns.NsHandle(h.NetNS)); err != nil {
			done <- fmt.Errorf("enter the network namespace, which takes CAP_SYS_ADMIN: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

func (s *session) path(name string) string { return filepath.Join(s.dir, name) }

// target reads one of the symbolic links; "" if it is not there.
func (s *session) target(name string) (string, error) {
	t, err := os.Readlink(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return t, err
}

// point makes one of the symbolic links lead to target, in one step; "" takes it away.
func (s *session) point(name, target string) error {
	if target == "" {
		err := os.Remove(s.path(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	next := s.path(name + "_next")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, next); err != nil {
		return err
	}
	return os.Rename(next, s.path(name))
}

// begin says that the hooks may not be as the links say, end that they are.
func (s *session) begin() error {
	err := os.Mkdir(s.path(nameUnfinished), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (s *session) end() error {
	err := os.Remove(s.path(nameUnfinished))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *session) unfinished() bool {
	_, err := os.Stat(s.path(nameUnfinished))
	return err == nil
}

// generations are the numbers of those that have a directory.
func (s *session) generations() (list []uint64, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if n, err := strconv.ParseUint(strings.TrimPrefix(f.Name(), "g"), 10, 64); err == nil && generationName(n) == f.Name() {
			list = append(list, n)
		}
	}
	return list, nil
}

func generationName(n uint64) string { return "g" + strconv.FormatUint(n, 10) }

// removeTree takes a directory of pins away. What is attached stays so.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err != nil {
		return fmt.Errorf("removing the pins in %s: %w", dir, err)
	}
	return nil
}
