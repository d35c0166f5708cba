// Package tc attaches an eBPF program of type SCHED_CLS to the way out of, or the way
// into, an interface of a network namespace, by tcx (Linux 6.6). The attachment is a link that is
// pinned in a bpffs: it outlives the process that installs it, until the pin is removed
// or the interface is. A new program takes the place of the old one atomically:
// each frame is judged by one of the two (bpf_mprog_replace).
//
// Programs of others stay where they are. Ours is put before those that are there: behind
// one that returns anything but TCX_NEXT it would not be asked. Others can go before
// it later; State.Before names them.
//
// On the way out, tc does not see what is sent with PACKET_QDISC_BYPASS or from an AF_XDP
// socket: packages gate and seal are for that.
//
// clsact (cls_bpf), which older kernels have, is not built: what it attaches cannot be pinned.
// A bpffs that is mounted in a mount namespace of its own ends with that namespace, and
// so does what is pinned there: pin in one of the machine's.
//
// What the program says, and which interfaces are guarded, is not known here.
package tc

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/postern-fw/postern/kernel/bpffs"
)

var (
	// ErrNotSupported is matched by errors that say what the kernel lacks.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrNoBPFFS is matched where Attachment.Dir is not in a bpffs.
	ErrNoBPFFS = bpffs.ErrNone
	// ErrNoInterface is matched where the namespace has no interface of that index (any more).
	ErrNoInterface = errors.New("no such interface")
	// ErrForeign is matched where the pin is something else than this attachment.
	// It was left as it is.
	ErrForeign = errors.New("is not the attachment of this interface")
)

// Direction is the hook of an interface that a program is attached to.
type Direction uint8

const (
	// Egress is behind netfilter's egress hook (sch_handle_egress).
	Egress Direction = iota
	// Ingress is before netfilter's ingress hook (sch_handle_ingress).
	Ingress
)

var directions = [...]string{Egress: "egress", Ingress: "ingress"}

func (d Direction) String() string {
	if int(d) < len(directions) {
		return directions[d]
	}
	return fmt.Sprintf("Direction(%d)", d)
}

// Attachment names the attachment at one hook of one interface. Two values that are equal
// mean the same one, in whatever process. Methods may be called from several goroutines
// and processes at once; the last program stays.
type Attachment struct {
	// Interface is the index. It stays with a device that is renamed, and goes with one that is
	// deleted: the next of the same name has another index, as a rule.
	Interface int
	Direction Direction
	// Dir is the directory of a bpffs that keeps the pins of one network namespace.
	// Directories that are missing are made, with mode 0700.
	Dir string
	// NetNS is a descriptor of the network namespace, to be entered with CAP_SYS_ADMIN;
	// 0 means that of the calling thread. It stays the caller's.
	NetNS int
}

// Pin is the file that keeps the attachment.
func (a Attachment) Pin() string {
	// No dot, and so no interface's name, is allowed there (bpf_lookup).
	return filepath.Join(a.Dir, a.Direction.String()+"-"+strconv.Itoa(a.Interface))
}

func (a Attachment) String() string {
	return fmt.Sprintf("%s of interface %d", a.Direction, a.Interface)
}

// parsePin is the inverse of Pin.
func parsePin(dir, name string, netns int) (Attachment, bool) {
	for d, s := range directions {
		if index, err := strconv.Atoi(strings.TrimPrefix(name, s+"-")); err == nil {
			a := Attachment{Interface: index, Direction: Direction(d), Dir: dir, NetNS: netns}
			return a, filepath.Base(a.Pin()) == name
		}
	}
	return Attachment{}, false
}

// State is what Status found.
type State struct {
	// Name is that of the interface that has the index now; "" when there is none.
	Name string
	// Pinned says whether there is anything at the pin.
	Pinned bool
	// Attached says whether that is in force at this interface: not where the interface was
	// deleted, even if another one has got its index, nor where someone detached it.
	Attached bool
	// Program is what judges while Attached.
	Program ebpf.ProgramID
	// Before are the programs of others that are asked first. Unless they return TCX_NEXT
	// ours is not asked.
	Before []ebpf.ProgramID
}
