// Package seal closes, for the processes of a cgroup v2 subtree, the ways out that no
// egress hook or only some see: a cgroup/setsockopt eBPF program refuses with EPERM
//
//   - SOL_PACKET, PACKET_QDISC_BYPASS with another value than 0;
//   - every option of SOL_XDP, without which an AF_XDP socket has no rings and cannot send.
//
// It costs nothing for each frame. It survives the process that installs it, by a link that
// is pinned in a bpffs, until the pin is removed or the cgroup is.
//
// The kernel asks the cgroup in which a socket was made, not the one of the process
// that uses it: sockets from before the seal, and those that were inherited or
// passed from outside of the subtree, stay as they were. What they send with
// PACKET_QDISC_BYPASS is for the gate; for AF_XDP there is nothing else.
//
// What a policy says, and which interfaces are guarded, is not known here.
package seal

import (
	"errors"

	"github.com/postern-fw/postern/kernel/bpffs"
)

var (
	// ErrNotSupported is matched by errors that say what the kernel lacks.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNoCgroup2 is matched where Seal.Cgroup is no directory of a cgroup2 file system.
	ErrNoCgroup2 = errors.New("not a cgroup v2")
	// ErrNoBPFFS is matched where Seal.Pin is not in a bpffs.
	ErrNoBPFFS = bpffs.ErrNone
	// ErrForeign is matched where Seal.Pin is something else than this cgroup's seal.
	// It was left as it is.
	ErrForeign = errors.New("is not the seal of this cgroup")
)

// Seal names the seal of a cgroup. Two values that are equal mean the same one, in
// whatever process. Methods may be called from several goroutines and processes at once.
type Seal struct {
	// Cgroup is the directory of the cgroup; all below it is sealed too.
	Cgroup string
	// Pin is the file in a bpffs that keeps the seal. Directories that are missing
	// are made, with mode 0700.
	Pin string
}

// State is what Status found.
type State struct {
	// Pinned says whether there is anything at Seal.Pin.
	Pinned bool
	// Sealed says whether that is the seal of the cgroup that is at Seal.Cgroup now: one
	// that was deleted and made again under the same name is another, and not sealed.
	Sealed bool
}
