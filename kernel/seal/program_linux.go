package seal

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// programName tells our program from others' (it is cut to 15 bytes by the kernel).
const programName = "postern_seal"

// Offsets in struct bpf_sockopt.
const (
	sockoptOptval    = 8
	sockoptOptvalEnd = 16
	sockoptLevel     = 24
	sockoptOptname   = 28
	sockoptOptlen    = 32
)

// instructions decide about one native setsockopt call: 0 refuses it with EPERM, 1 lets it go on.
// The value that is looked at is the kernel's copy, which is also the one that is used
// (__cgroup_bpf_run_filter_setsockopt): it cannot be exchanged in between.
func instructions() asm.Instructions {
	page := int32(os.Getpagesize())
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, sockoptLevel, asm.Word),
		asm.JEq.Imm(asm.R2, unix.SOL_XDP, "refuse"),
		asm.JNE.Imm(asm.R2, unix.SOL_PACKET, "let go"),
		asm.LoadMem(asm.R2, asm.R1, sockoptOptname, asm.Word),
		asm.JNE.Imm(asm.R2, unix.PACKET_QDISC_BYPASS, "let go"),

		asm.LoadMem(asm.R2, asm.R1, sockoptOptval, asm.DWord),
		asm.LoadMem(asm.R3, asm.R1, sockoptOptvalEnd, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R2), asm.Add.Imm(asm.R4, 4),
		asm.JGT.Reg(asm.R4, asm.R3, "let go"), // for the verifier: there are 16 bytes at least
		asm.LoadMem(asm.R2, asm.R2, 0, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "let go"),

		asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"),
		asm.Return(),

		// Of longer values than a page the program has a part only; 0 says that the
		// caller's memory is meant, as it would be without a program.
		asm.LoadMem(asm.R2, asm.R1, sockoptOptlen, asm.Word).WithSymbol("let go"),
		asm.JSLE.Imm(asm.R2, page, "done"),
		asm.Mov.Imm(asm.R2, 0),
		asm.StoreMem(asm.R1, sockoptOptlen, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("done"),
		asm.Return(),
	}
}

// load gives the program to the kernel.
func load() (*ebpf.Program, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         programName,
		Type:         ebpf.CGroupSockopt,
		AttachType:   ebpf.AttachCGroupSetsockopt,
		License:      "MIT",
		Instructions: instructions(),
	})
	switch {
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("load the program: %w: it takes CAP_BPF and CAP_NET_ADMIN in the first user namespace", err)
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, unix.E2BIG), errors.Is(err, ebpf.ErrNotSupported):
		return nil, fmt.Errorf("load the program: cgroup/setsockopt (Linux 5.3, CONFIG_CGROUP_BPF) %w: %w", ErrNotSupported, err)
	case err != nil:
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return p, nil
}

// enotsupp is the kernel's own ENOTSUPP, by which an architecture says that it has no trampolines.
const enotsupp = unix.Errno(524)

// attach links the program to an open cgroup. Unlike cilium/ebpf's AttachCgroup it does
// not fall back to an attachment that nothing can be pinned of.
func attach(p *ebpf.Program, as ebpf.AttachType, cgroup *os.File) (*link.RawLink, error) {
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(cgroup.Fd()), Program: p, Attach: as})
	switch {
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, enotsupp):
		return nil, fmt.Errorf("a link to a cgroup (Linux 5.7) %w: %w", ErrNotSupported, err)
	case errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("attach: %w: an ancestor's program may forbid others (bpftool cgroup tree), or CAP_NET_ADMIN is missing", err)
	case err != nil:
		return nil, fmt.Errorf("attach: %w", err)
	}
	return l, nil
}

// Probe says whether this process on this kernel could seal a cgroup, and changes nothing.
// Its error matches ErrNotSupported, or os.ErrPermission where only rights are missing.
func Probe() error {
	p, err := load()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer p.Close()
	none, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	defer none.Close()
	// It is no cgroup (EBADF); kernels without links do not come so far.
	l, err := attach(p, ebpf.AttachCGroupSetsockopt, none)
	if err == nil {
		return l.Close()
	}
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	return fmt.Errorf("seal: %w", err)
}
