package bpf

import (
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// kernelRun asks the kernel for decisions, one system call to run the program and one to
// read the scratch area: a million pairs of policy and frame take three seconds that way,
// and half a minute by cilium/ebpf, which allocates for each.
type kernelRun struct {
	prog, scratch uint32
	run           runAttr
	look          lookupAttr
	ctx           [192]byte
	key           uint32
	area          []byte // the scratch areas of all CPUs
}

// runAttr and lookupAttr are parts of union bpf_attr (include/uapi/linux/bpf.h).
type runAttr struct {
	prog, _, sizeIn, _ uint32
	in, _              uint64
	_, _, ctxSize, _   uint32
	ctxIn, _           uint64
	_, _, _, _         uint32
}

type lookupAttr struct {
	fd, _       uint32
	key, val, _ uint64
}

const (
	cmdLookup = 1  // BPF_MAP_LOOKUP_ELEM
	cmdRun    = 10 // BPF_PROG_TEST_RUN
)

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

func bpf[T any](cmd uintptr, attr *T) error {
	_, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if e != 0 {
		return e
	}
	return nil
}

// judge has the program judge a frame; ok is false if the kernel does not take the frame.
func (r *kernelRun) judge(frame []byte, gso, mark uint32) (ok bool, err error) {
	binary.NativeEndian.PutUint32(r.ctx[skbMark:], mark)
	binary.NativeEndian.PutUint32(r.ctx[skbGSOSize:], gso)
	r.run = runAttr{prog: r.prog, sizeIn: uint32(len(frame)), in: address(&frame[0]), ctxSize: uint32(len(r.ctx)), ctxIn: address(&r.ctx[0])}
	err = bpf(cmdRun, &r.run)
	runtime.KeepAlive(frame)
	if errors.Is(err, unix.EINVAL) {
		return false, nil
	}
	return err == nil, err
}

// decision reads what was decided on CPU 0 last.
func (r *kernelRun) decision() (o outcome, err error) {
	r.look = lookupAttr{fd: r.scratch, key: address(&r.key), val: address(&r.area[0])}
	if err := bpf(cmdLookup, &r.look); err != nil {
		return o, err
	}
	u := func(off int) uint32 { return binary.NativeEndian.Uint32(r.area[off:]) }
	o = outcome{verdict: u(sVerdict), reason: u(sReason), rule: u(sRule), marked: u(sFlags)&flagMarked != 0, audited: u(sFlags)&flagAudited != 0}
	if o.marked {
		o.mark = u(sMark)
	}
	for i := range min(u(sNEffects), firewall.MaxEffects) {
		o.effects = o.effects*10007 + u(sEffects+4*int(i)) + 1
	}
	return o, nil
}
