package tc

import (
	"errors"
	"fmt"
	"math"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Probe says whether this process on this kernel could attach a program by either kind: see
// Kind.Probe.
func Probe() error { return Auto.Probe() }

// Probe says whether this process on this kernel could attach a program by a kind, and changes
// nothing. Its error matches ErrNotSupported, or os.ErrPermission where only rights are missing.
func (k Kind) Probe() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "postern_probe", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
	})
	if err != nil {
		return fmt.Errorf("tc: %w", explainTCX("load a program", err))
	}
	defer p.Close()
	if k != Clsact {
		err = probeTCX(p)
	}
	if k == Clsact || k == Auto && errors.Is(err, ErrNotSupported) {
		err = probeClsact(p)
	}
	if err != nil {
		return fmt.Errorf("tc: %w", err)
	}
	return nil
}

// probeTCX asks for an index that no interface has; kernels without tcx do not come so far.
func probeTCX(p *ebpf.Program) error {
	l, err := Attachment{Interface: math.MaxInt32}.attach(p)
	if errors.Is(err, ErrNoInterface) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Close()
}

// probeClsact adds a filter to the loopback device of a network namespace that ends with the thread.
func probeClsact(p *ebpf.Program) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("try clsact in a network namespace of its own, which takes CAP_SYS_ADMIN: %w", err)
		}
		h, err := rtnetlink(0)
		if err != nil {
			return err
		}
		defer h.Close()
		return (&clsact{a: Attachment{Interface: 1}, h: h}).put(p)
	})
}

func (a Attachment) gone(err error) error {
	return fmt.Errorf("%w with index %d in the network namespace: %w", ErrNoInterface, a.Interface, err)
}

// inNetNS runs fn on a thread in the network namespace. No path is to be opened there:
// the caller's thread may be in a mount namespace of its own.
func inNetNS(ns int, fn func() error) error {
	if ns == 0 {
		return fn()
	}
	return onThread(func() error {
		if err := netns.Set(netns.NsHandle(ns)); err != nil {
			return fmt.Errorf("enter the network namespace, which takes CAP_SYS_ADMIN: %w", err)
		}
		return fn()
	})
}

// onThread runs fn on a thread that ends with it, so that nothing else runs in the wrong namespace.
func onThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- fn()
	}()
	return <-done
}
