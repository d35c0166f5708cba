// Package tc attaches an eBPF program of type SCHED_CLS to the way out of, or the way
// into, an interface of a network namespace: by tcx where the kernel has it (Linux 6.6), by
// a direct-action filter of clsact (cls_bpf) otherwise. Either outlives the process that
// installs it, until it is removed or the interface is. A new program takes the place of
// the old one atomically: each frame is judged by one of the two (bpf_mprog_replace,
// cls_bpf_change). From one kind to the other, the new one is attached before the old one
// is removed: for a moment a frame is judged by both, and a limit counts it twice.
//
// tcx keeps the attachment by a link that is pinned in a bpffs. A bpffs that is mounted in a
// mount namespace of its own ends with that namespace, and so does what is pinned there: pin in
// one of the machine's.
//
// clsact needs no bpffs. Its filter has a place and a name of our own, and so there is one
// for each hook, whatever Attachment.Dir is. The qdisc that holds it is made where it
// is missing, and what is another's is used as it is, never replaced. The filter's name
// says whether the qdisc is ours (see mark); then it goes with our last filter, unless
// someone has a chain there by then. An interface that is moved to another network
// namespace loses its qdiscs, and so this guard (dev_shutdown); tcx goes with it.
//
// Programs of others stay where they are. Ours is put before those of its kind that are
// there: behind one that returns anything but TCX_NEXT or TC_ACT_UNSPEC, which are both
// -1, it would not be asked. tcx comes before clsact, and others can go before ours later;
// State.Before names them.
//
// On the way out, tc does not see what is sent with PACKET_QDISC_BYPASS or from an AF_XDP
// socket: packages gate and seal are for that.
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
	// ErrNoBPFFS is matched where Attachment.Dir is not in a bpffs, and tcx would need it.
	ErrNoBPFFS = bpffs.ErrNone
	// ErrNoInterface is matched where the namespace has no interface of that index (any more).
	ErrNoInterface = errors.New("no such interface")
	// ErrForeign is matched where the pin, the filter's place or the qdisc is something
	// else than this attachment's. It was left as it is.
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

// Kind is the way in which a program is attached.
type Kind uint8

const (
	// Auto adopts what is in force. Where nothing is, it is TCX, and Clsact on
	// kernels without.
	Auto Kind = iota
	TCX
	Clsact
)

var kindNames = [...]string{Auto: "auto", TCX: "tcx", Clsact: "clsact"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", k)
}

// Attachment names the attachment at one hook of one interface. Two values that are equal
// mean the same one, in whatever process. Methods may be called from several goroutines
// and processes at once; the last program stays.
type Attachment struct {
	// Interface is the index. It stays with a device that is renamed, and goes with one that is
	// deleted: the next of the same name has another index, as a rule.
	Interface int
	Direction Direction
	// Kind is what Install is to make it. Status and Remove find either.
	Kind Kind
	// Dir is the directory of a bpffs that keeps the pins of one network namespace, and
	// the lock between processes. Directories that are missing are made, with mode 0700.
	// Where it is none, "" for example, Clsact does without: it sees no pins then, and other
	// processes are to be kept away by the caller. So does Auto on kernels without tcx.
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
	// Attached says whether the attachment is in force at this interface: not where the
	// interface was deleted, even if another one has got its index, nor where someone detached it.
	Attached bool
	// Kind is TCX or Clsact while Attached.
	Kind Kind
	// Program is what judges while Attached.
	Program ebpf.ProgramID
	// Before are the programs of others that are asked first. Unless they return TCX_NEXT
	// ours is not asked. A filter of classic BPF has the id 0.
	Before []ebpf.ProgramID
	// Behind is our program of clsact behind that of tcx, where a process ended between the
	// two steps from one kind to the other. Both judge until the next Install.
	Behind ebpf.ProgramID
}
