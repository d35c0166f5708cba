package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// half is one of the seal's programs and its pin.
type half struct {
	pin        string
	name       string // of the program
	attachType ebpf.AttachType
	load       func() (*ebpf.Program, error)
	optional   bool // for kernels without it

	program *ebpf.Program
	old     link.Link // what is at the pin
	sealed  bool      // it is this cgroup's
}

func (s Seal) halves() [2]*half {
	pins := s.Pins()
	return [2]*half{
		{pin: pins[0], name: programName, attachType: ebpf.AttachCGroupSetsockopt, load: load},
		{pin: pins[1], name: program32Name, attachType: ebpf.AttachLSMCgroup, load: func() (*ebpf.Program, error) { return load32() }, optional: true},
	}
}

func (h *half) close() {
	if h.program != nil {
		h.program.Close()
	}
	if h.old != nil {
		h.old.Close()
	}
}

// prepare does all that may fail and changes nothing.
func (h *half) prepare(cgroup *os.File) (err error) {
	if err := h.open(cgroup); err != nil {
		return err
	}
	h.program, err = h.load()
	return err
}

func (h *half) install(cgroup *os.File) error {
	if h.sealed {
		if err := h.old.Update(h.program); err != nil {
			return fmt.Errorf("exchange the program of %s: %w", h.pin, err)
		}
		return nil
	}
	l, err := attach(h.program, h.attachType, cgroup)
	if err != nil {
		return err
	}
	defer l.Close() // what is pinned stays
	if h.old != nil {
		if err := h.old.Unpin(); err != nil {
			return fmt.Errorf("remove the pin of a deleted cgroup: %w", err)
		}
	}
	if err := l.Pin(h.pin); err != nil {
		return fmt.Errorf("pin at %s: %w", h.pin, err)
	}
	return nil
}

func (h *half) remove(cgroup *os.File) error {
	defer h.close()
	if err := h.open(cgroup); err != nil || h.old == nil {
		return err
	}
	return detach(h.old, h.pin)
}

// detach ends a link and its pin. Others may hold the link open, and it would go on: the pin is
// not all of it.
func detach(l link.Link, pin string) error {
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) {
		return fmt.Errorf("detach %s: %w", pin, err)
	}
	if err := l.Unpin(); err != nil {
		return fmt.Errorf("remove %s: %w", pin, err)
	}
	return nil
}

// open opens what is at the pin, if there is anything: the seal of the cgroup, or of one
// that was deleted. Anything else is foreign.
func (h *half) open(cgroup *os.File) error {
	foreign := func(what string, err error) error {
		if err != nil {
			what = fmt.Sprintf("%s: %v", what, err)
		}
		return fmt.Errorf("%s %w: it is %s; remove it, or pin elsewhere", h.pin, ErrForeign, what)
	}
	if _, err := os.Lstat(h.pin); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	l, err := link.LoadPinnedLink(h.pin, nil)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("open %s: %w", h.pin, err)
	}
	if err != nil {
		return foreign("no link of eBPF", err)
	}
	sealed, what, err := h.isSeal(l, cgroup)
	if what != "" || err != nil {
		l.Close()
		return foreign(what, err)
	}
	h.old, h.sealed = l, sealed
	return nil
}

// isSeal says whether a link seals the cgroup, or what else it is. The seal of a cgroup
// that was deleted does not, and is nothing else; nor any where cgroup is nil.
func (h *half) isSeal(l link.Link, cgroup *os.File) (sealed bool, what string, err error) {
	info, err := l.Info()
	if err != nil {
		return false, "a link that cannot be read", err
	}
	c := info.Cgroup()
	if c == nil || ebpf.AttachType(c.AttachType) != h.attachType {
		return false, fmt.Sprintf("a link of type %v", info.Type), nil
	}
	// Without CAP_SYS_ADMIN the program cannot be looked at, and the place must do.
	if p, err := ebpf.NewProgramFromID(info.Program); err == nil {
		defer p.Close()
		if pi, err := p.Info(); err == nil && pi.Name != h.name {
			return false, fmt.Sprintf("a link of the program %q", pi.Name), nil
		}
	}
	if cgroup == nil || c.CgroupId == 0 { // bpf_cgroup_link_auto_detach
		return false, "", nil
	}
	id, err := cgroupID(cgroup)
	switch {
	case err != nil:
		return false, fmt.Sprintf("the seal of cgroup id %d", c.CgroupId), err
	case id != c.CgroupId && alive(cgroup, c.CgroupId):
		return false, fmt.Sprintf("the seal of another cgroup (id %d, not %d)", c.CgroupId, id), nil
	}
	return id == c.CgroupId, "", nil
}
