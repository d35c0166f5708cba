//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Receiver copies every frame that arrives at one end of a pair, before anything else
// there sees it. It is an XDP program in the driver, since packet sockets do not see what
// an ifb sent on (skb_skip_tc_classify in __netif_receive_skb_core), nor generic XDP
// what was redirected (netif_receive_generic_xdp). What finds no room is lost:
// some 60,000 short frames that nobody has read.
type Receiver struct {
	events, scratch, lost *ebpf.Map
	program               *ebpf.Program
	link                  link.Link
	frames                *ringbuf.Reader
}

// room is for a frame and, before it, its length. Longer ones are not copied.
const room = 2048

// Receive starts to copy what arrives at end i. It needs CAP_BPF and CAP_NET_ADMIN.
// The caller closes it.
func (p *Pair) Receive(i int) (r *Receiver, err error) {
	r = &Receiver{}
	defer func() {
		if err != nil {
			r.Close()
			r, err = nil, fmt.Errorf("lab: receiver at %s: %w", p.Ifi[i].Name, err)
		}
	}()
	if r.events, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4 << 20}); err != nil {
		return r, err
	}
	if r.scratch, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: room, MaxEntries: 1}); err != nil {
		return r, err
	}
	if r.lost, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return r, err
	}
	spec := &ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL", Instructions: arrival(r.events, r.scratch, r.lost)}
	if r.program, err = ebpf.NewProgram(spec); err != nil {
		return r, err
	}
	if r.frames, err = ringbuf.NewReader(r.events); err != nil {
		return r, err
	}
	err = p.Do(i, func() (err error) {
		r.link, err = link.AttachXDP(link.XDPOptions{Program: r.program, Interface: p.Ifi[i].Index, Flags: link.XDPDriverMode})
		return err
	})
	return r, err
}

// Next is the next frame, or os.ErrDeadlineExceeded when none has come in that time.
func (r *Receiver) Next(within time.Duration) ([]byte, error) {
	r.frames.SetDeadline(time.Now().Add(within))
	rec, err := r.frames.Read()
	if err != nil {
		return nil, err
	}
	n := binary.NativeEndian.Uint64(rec.RawSample)
	return rec.RawSample[8 : 8+n], nil
}

// Lost is how many frames arrived that were not copied.
func (r *Receiver) Lost() (n uint64, err error) {
	if err := r.lost.Lookup(uint32(0), &n); err != nil {
		return 0, fmt.Errorf("lab: receiver: %w", err)
	}
	return n, nil
}

// Drain adds what arrived to the counts, by the frame's bytes, until nothing came for
// a while.
func (r *Receiver) Drain(counts map[string]int) error {
	for {
		frame, err := r.Next(30 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		counts[string(frame)]++
	}
}

// Close ends the copying.
func (r *Receiver) Close() error {
	var errs []error
	if r.link != nil {
		errs = append(errs, r.link.Close())
	}
	if r.frames != nil {
		errs = append(errs, r.frames.Close())
	}
	if r.program != nil {
		errs = append(errs, r.program.Close())
	}
	return errors.Join(append(errs, r.scratch.Close(), r.events.Close(), r.lost.Close())...)
}

func arrival(events, scratch, lost *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, scratch.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "lost"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.FnXdpGetBuffLen.Call(),
		asm.JGT.Imm(asm.R0, room-8, "lost"),
		asm.JLT.Imm(asm.R0, 1, "lost"),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.StoreMem(asm.R7, 0, asm.R8, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, 8),
		asm.Mov.Reg(asm.R4, asm.R8),
		asm.FnXdpLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "lost"),
		asm.LoadMapPtr(asm.R1, events.FD()),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Reg(asm.R3, asm.R8), asm.Add.Imm(asm.R3, 8),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word).WithSymbol("lost"),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, lost.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
		asm.Return(),
	}
}
