package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func (d Direction) attachType() ebpf.AttachType {
	if d == Ingress {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

// tcx is the link that is pinned, and what is at the hook.
type tcx struct {
	a        Attachment
	link     link.Link // nil if none is pinned
	programs []link.AttachedProgram
	at       int   // where ours is among them, or -1
	lack     error // matches ErrNotSupported on kernels without tcx
}

func (t *tcx) close() {
	if t.link != nil {
		t.link.Close()
	}
}

// examineTCX opens the link that is pinned, and finds out what it is. It is in force at
// the interface, or at none; anything else is foreign.
func (a Attachment) examineTCX(pins bool) (*tcx, error) {
	t := &tcx{a: a, at: -1}
	if t.programs, t.lack = a.programs(); t.lack != nil && !errors.Is(t.lack, ErrNotSupported) {
		return nil, t.lack
	}
	if !pins {
		return t, nil
	}
	if _, err := os.Lstat(a.Pin()); errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	l, err := link.LoadPinnedLink(a.Pin(), nil)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("open %s: %w: it takes CAP_BPF", a.Pin(), err)
	}
	if err != nil {
		return nil, a.foreignPin(fmt.Sprintf("no link of eBPF: %v", err))
	}
	info, err := l.Info()
	if err != nil {
		l.Close()
		return nil, a.foreignPin(fmt.Sprintf("a link that cannot be read: %v", err))
	}
	t.link = l
	t.at = slices.IndexFunc(t.programs, func(p link.AttachedProgram) bool { id, _ := p.LinkID(); return id == info.ID })
	if what := a.elsewhere(info); t.at < 0 && what != "" {
		l.Close()
		return nil, a.foreignPin(what)
	}
	return t, nil
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

func (a Attachment) foreignPin(what string) error {
	return fmt.Errorf("%s %w: it is %s; remove it, or pin elsewhere", a.Pin(), ErrForeign, what)
}

// programs are those of tcx at the hook, in the order in which they are asked.
func (a Attachment) programs() (attached []link.AttachedProgram, err error) {
	err = inNetNS(a.NetNS, func() error {
		r, err := link.QueryPrograms(link.QueryOptions{Target: a.Interface, Attach: a.Direction.attachType()})
		switch {
		case errors.Is(err, unix.ENODEV):
			return nil
		case errors.Is(err, unix.EINVAL): // bpf_prog_query does not know the hook
			return explainTCX("ask what is attached", fmt.Errorf("%w: %w", ebpf.ErrNotSupported, err))
		case err != nil:
			return explainTCX("ask what is attached", err)
		}
		attached = r.Programs
		return nil
	})
	return attached, err
}

// put makes a link before all that is there, or exchanges the program of ours.
func (t *tcx) put(p *ebpf.Program) error {
	if t.lack != nil {
		return t.lack
	}
	if t.at >= 0 {
		return t.exchange(p)
	}
	l, err := t.a.attach(p)
	if err != nil {
		return err
	}
	defer l.Close() // what is pinned stays
	if t.link != nil {
		if err := t.link.Unpin(); err != nil {
			return fmt.Errorf("remove the pin of a deleted interface: %w", err)
		}
	}
	if err := l.Pin(t.a.Pin()); err != nil {
		return fmt.Errorf("pin at %s: %w", t.a.Pin(), err)
	}
	return nil
}

func (t *tcx) exchange(p *ebpf.Program) error {
	err := t.link.Update(p)
	if errors.Is(err, unix.ENOLINK) { // tcx_link_update: the interface is gone
		return t.a.gone(err)
	}
	if err != nil {
		return fmt.Errorf("exchange the program of %s: %w", t.a.Pin(), err)
	}
	return nil
}

func (t *tcx) drop() error {
	if t.link == nil {
		return nil
	}
	// Others may hold the link open, and it would go on: the pin is not all of it.
	if err := t.link.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach %s: %w", t.a.Pin(), err)
	}
	if err := t.link.Unpin(); err != nil {
		return fmt.Errorf("remove %s: %w", t.a.Pin(), err)
	}
	return nil
}

// attach makes a link before all that is there.
func (a Attachment) attach(p *ebpf.Program) (l link.Link, err error) {
	err = inNetNS(a.NetNS, func() error {
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
		return nil, explainTCX("attach", err)
	}
	return l, nil
}

// explainTCX says what is missing where the kernel refused.
func explainTCX(what string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: it takes CAP_BPF and CAP_NET_ADMIN in the first user namespace", what, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: tcx (Linux 6.6, CONFIG_NET_XGRESS) %w: %w", what, ErrNotSupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// listPins is the attachments whose pins are in a directory.
func listPins(dir string, netns int) (found []Attachment, err error) {
	f, err := Attachment{Dir: dir, NetNS: netns}.openPins(false)
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if a, ok := parsePin(dir, name, netns); ok {
			found = append(found, a)
		}
	}
	return found, nil
}

// Release takes away what a pin of this package keeps, at whatever interface it is: one that was moved
// to another network namespace takes its link along. That there is none is no error.
func Release(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tc: %s: %w", pin, err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return fmt.Errorf("tc: %s: %w", pin, err)
	}
	if info.TCX() == nil {
		return fmt.Errorf("tc: %s %w: it is a link of type %v", pin, ErrForeign, info.Type)
	}
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("tc: detach %s: %w", pin, err)
	}
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("tc: remove %s: %w", pin, err)
	}
	return nil
}
