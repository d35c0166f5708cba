// Package seal closes, for the processes of a cgroup v2 subtree, the ways out that no
// egress hook or only some see: a cgroup/setsockopt eBPF program refuses with EPERM
//
//   - SOL_PACKET, PACKET_QDISC_BYPASS with another value than 0;
//   - every option of SOL_XDP, without which an AF_XDP socket has no rings and cannot send.
//
// It costs nothing for each frame. It survives the process that installs it, by links that
// are pinned in a bpffs, until the pins are removed or the cgroup is.
//
// The kernel does not run such a program for a setsockopt by a 32-bit system call
// (do_sock_setsockopt), which 64-bit programs can make too: int 0x80, x32, or an io_uring that was
// set up by one. A second program is for these, at the LSM hook socket_setsockopt (BPF_LSM_CGROUP:
// Linux 6.0, CONFIG_BPF_LSM, "bpf" among the active LSMs, BTF). It does not see the value: of
// PACKET_QDISC_BYPASS it lets go what is for certain a native system call, and refuses also the
// value 0 to 32-bit ones and to threads that use io_uring. Where the kernel lacks it the first
// program is alone, and State.Open32 tells.
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
	// ErrForeign is matched where one of Seal.Pins is something else than this cgroup's seal.
	// It was left as it is.
	ErrForeign = errors.New("is not the seal of this cgroup")
)

// Seal names the seal of a cgroup. Two values that are equal mean the same one, in
// whatever process. Methods may be called from several goroutines and processes at once.
type Seal struct {
	// Cgroup is the directory of the cgroup; all below it is sealed too.
	Cgroup string
	// Pin is the file in a bpffs that keeps the seal. Directories that are missing
	// are made, with mode 0700. Pins has the other.
	Pin string
}

// Pins are the files in the bpffs that a seal may have: its own for each program.
func (s Seal) Pins() []string { return []string{s.Pin, s.Pin + "_32"} }

// State is what Status found.
type State struct {
	// Pinned says whether there is anything at Seal.Pins.
	Pinned bool
	// Sealed says whether that is the seal of the cgroup that is at Seal.Cgroup now: one
	// that was deleted and made again under the same name is another, and not sealed.
	Sealed bool
	// Open32 says why 32-bit system calls pass the seal, or may; it is "" where they do not,
	// and where the kernel has none.
	Open32 string
}
