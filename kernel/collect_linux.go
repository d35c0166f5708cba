package kernel

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel/seal"
)

// collect removes what network namespaces left behind that are gone: nothing there can be in
// force any more. What it cannot tell, it leaves.
func (s *session) collect() {
	others, err := filepath.Glob(filepath.Join(filepath.Dir(s.dir), "net-*"))
	if err != nil {
		return
	}
	for _, dir := range others {
		if dir != s.dir {
			collectDir(dir)
		}
	}
}

func collectDir(dir string) {
	lock, err := os.Open(dir)
	if err != nil {
		return
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil || !dead(filepath.Join(dir, nameLinks)) {
		return
	}
	seals, _ := filepath.Glob(filepath.Join(dir, nameSeals, "*"))
	for _, pin := range seals {
		_ = seal.Release(pin)
	}
	_ = os.RemoveAll(dir)
}

// dead says whether a directory has links, and every one has lost its interface. The
// inspection device has one as long as its namespace lives.
func dead(dir string) bool {
	files, err := os.ReadDir(dir)
	if err != nil || len(files) == 0 {
		return false
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(dir, f.Name()), nil)
		if err != nil {
			return false
		}
		info, err := l.Info()
		l.Close()
		if err != nil || info.TCX() == nil || info.TCX().Ifindex != 0 {
			return false
		}
	}
	return true
}
