package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func (d Direction) attachType() ebpf.AttachType {
	if d == Ingress {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

func (a Attachment) gone(err error) error {
	return fmt.Errorf("%w with index %d in the network namespace: %w", ErrNoInterface, a.Interface, err)
}

// examine opens the link that is pinned, nil if there is none, and finds out what
// it is. It is in force at the interface, or at none; anything else is foreign.
func (a Attachment) examine() (_ link.Link, s State, err error) {
	var attached []link.AttachedProgram
	if s.Name, attached, err = a.device(); err != nil {
		return nil, s, err
	}
	if _, err := os.Lstat(a.Pin()); errors.Is(err, fs.ErrNotExist) {
		return nil, s, nil
	}
	s.Pinned = true
	l, err := link.LoadPinnedLink(a.Pin(), nil)
	if errors.Is(err, fs.ErrPermission) {
		return nil, s, fmt.Errorf("open %s: %w: it takes CAP_BPF", a.Pin(), err)
	}
	if err != nil {
		return nil, s, a.foreign(fmt.Sprintf("no link of eBPF: %v", err))
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, s, a.foreign(fmt.Sprintf("a link that cannot be read: %v", err))
	}
	i := slices.IndexFunc(attached, func(p link.AttachedProgram) bool { id, _ := p.LinkID(); return id == info.ID })
	if i < 0 {
		if what := a.elsewhere(info); what != "" {
			l.Close()
			return nil, s, a.foreign(what)
		}
		return l, s, nil
	}
	s.Attached, s.Program = true, attached[i].ID
	for _, p := range attached[:i] {
		s.Before = append(s.Before, p.ID)
	}
	return l, s, nil
}

// elsewhere says what a link is that is not in force at the interface; "" if it
// was, before the interface was deleted.
func (a Attachment) elsewhere(info *link.Info) string {
	tcx := info.TCX()
	switch {
	case tcx == nil:
		return fmt.Sprintf("a link of type %v", info.Type)
	case ebpf.AttachType(tcx.AttachType) != a.Direction.attachType():
		return fmt.Sprintf("a link of type %v", ebpf.AttachType(tcx.AttachType))
	case tcx.Ifindex == 0: // tcx_uninstall
		return ""
	case int(tcx.Ifindex) != a.Interface:
		return fmt.Sprintf("in force at the interface of index %d", tcx.Ifindex)
	}
	return "in force at an interface in another network namespace"
}

func (a Attachment) foreign(what string) error {
	return fmt.Errorf("%s %w: it is %s; remove it, or pin elsewhere", a.Pin(), ErrForeign, what)
}

// device finds the interface's name, "" if there is none, and what is attached to it.
func (a Attachment) device() (name string, attached []link.AttachedProgram, err error) {
	err = a.inNetNS(func() error {
		r, err := link.QueryPrograms(link.QueryOptions{Target: a.Interface, Attach: a.Direction.attachType()})
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		if errors.Is(err, unix.EINVAL) { // bpf_prog_query does not know the hook
			err = fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err)
		}
		if err != nil {
			return explain("ask what is attached", err)
		}
		ifi, err := net.InterfaceByIndex(a.Interface)
		if err != nil { // deleted in between, or there is no netlink
			return explain("ask for the interface's name", err)
		}
		name, attached = ifi.Name, r.Programs
		return nil
	})
	return name, attached, err
}

// attach makes a link before all that is there.
func (a Attachment) attach(p *ebpf.Program) (l link.Link, err error) {
	err = a.inNetNS(func() error {
		l, err = link.AttachTCX(link.TCXOptions{
			Interface: a.Interface, Program: p, Attach: a.Direction.attachType(), Anchor: link.Head()})
		return err
	})
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, a.gone(err)
	case errors.Is(err, unix.ERANGE):
		return nil, fmt.Errorf("attach: %w: a hook has room for 64 programs (BPF_MPROG_MAX)", err)
	case err != nil:
		return nil, explain("attach", err)
	}
	return l, nil
}

// exchange puts a program in the place of a link's.
func (a Attachment) exchange(l link.Link, p *ebpf.Program) error {
	err := l.Update(p)
	if errors.Is(err, unix.ENOLINK) { // tcx_link_update: the interface is gone
		return a.gone(err)
	}
	if err != nil {
		return fmt.Errorf("exchange the program of %s: %w", a.Pin(), err)
	}
	return nil
}

// explain says what is missing where the kernel refused.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: it takes CAP_BPF and CAP_NET_ADMIN in the first user namespace", what, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: tcx (Linux 6.6, CONFIG_NET_XGRESS) %w; clsact would be the alternative, and is not built: %w", what, ErrNotSupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// inNetNS runs fn on a thread in the network namespace. No path is to be opened there:
// the caller's thread may be in a mount namespace of its own.
func (a Attachment) inNetNS(fn func() error) error {
	if a.NetNS == 0 {
		return fn()
	}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends, so that nothing else runs in the wrong namespace.
		runtime.LockOSThread()
		if err := netns.Set(netns.NsHandle(a.NetNS)); err != nil {
			done <- fmt.Errorf("enter the network namespace, which takes CAP_SYS_ADMIN: %w", err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// Probe says whether this process on this kernel could attach a program, and changes nothing.
// Its error matches ErrNotSupported, or os.ErrPermission where only rights are missing.
func Probe() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "postern_probe", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
	})
	if err != nil {
		return fmt.Errorf("tc: %w", explain("load a program", err))
	}
	defer p.Close()
	// No interface has that index; kernels without tcx do not come so far.
	err = Attachment{Interface: math.MaxInt32}.try(p)
	if err == nil || errors.Is(err, ErrNoInterface) {
		return nil
	}
	return fmt.Errorf("tc: %w", err)
}

func (a Attachment) try(p *ebpf.Program) error {
	l, err := a.attach(p)
	if err != nil {
		return err
	}
	return l.Close()
}
