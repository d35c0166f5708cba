package matrix

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// receiver takes all frames that arrive at the far device. It is an XDP program in the
// driver, since packet sockets do not see what an ifb sent on (skb_skip_tc_classify in
// __netif_receive_skb_core), nor generic XDP what was redirected
// (netif_receive_generic_xdp).
type receiver struct {
	p      *lab.Pair
	frames *ringbuf.Reader
	record ringbuf.Record
	lost   *ebpf.Map
	// end sends the frame that ends a batch, by an AF_XDP socket at the near device: no
	// egress hook sees it, and veth's queue keeps the order.
	end func(frame []byte) error
	own *xsk
	n   uint64
	// inner is what of an arriving frame counts; nil for all of it.
	inner func([]byte) []byte
}

// room is for a frame and, before it, its length.
const room = 2048

func receive(t testing.TB, p *lab.Pair) *receiver {
	t.Helper()
	newMap := func(spec ebpf.MapSpec) *ebpf.Map {
		m, err := ebpf.NewMap(&spec)
		must(t, err)
		t.Cleanup(func() { m.Close() })
		return m
	}
	events := newMap(ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4 << 20})
	scratch := newMap(ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: room, MaxEntries: 1})
	lost := newMap(ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL", Instructions: arrival(events, scratch, lost)})
	must(t, err)
	t.Cleanup(func() { program.Close() })
	must(t, p.Do(1, func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: p.Ifi[1].Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	r := &receiver{p: p, lost: lost}
	r.frames, err = ringbuf.NewReader(events)
	must(t, err)
	t.Cleanup(func() { r.frames.Close() })
	must(t, r.listen())
	t.Cleanup(r.pause)
	return r
}

// arrival hands a frame to user space, and counts those that it could not. None goes
// further: the far host answers nothing.
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
		asm.StoreMem(asm.R7, 0, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R8, asm.R0), asm.Add.Imm(asm.R8, 8),
		asm.Mov.Reg(asm.R4, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, 8),
		asm.FnXdpLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "lost"),
		asm.LoadMapPtr(asm.R1, events.FD()),
		asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Reg(asm.R3, asm.R8), asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "done"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word).WithSymbol("lost"),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, lost.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "done"),
		asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("done"), // XDP_DROP
		asm.Return(),
	}
}

// listen opens the socket that ends batches; pause closes it, for a device's queue
// takes one AF_XDP socket.
func (r *receiver) listen() error {
	return r.p.Do(0, func() (err error) {
		if r.own, err = newXSK(r.p.Ifi[0].Index); err == nil {
			r.end = r.own.send
		}
		return err
	})
}

func (r *receiver) pause() {
	if r.own != nil {
		r.own.close()
		r.own = nil
	}
}

// settle gives fn each frame that arrived of those that were sent before.
func (r *receiver) settle(fn func(frame []byte)) error {
	r.n++
	end := make([]byte, 64)
	copy(end, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5 end of a batch")
	binary.BigEndian.PutUint64(end[56:], r.n)
	if err := r.end(end); err != nil {
		return fmt.Errorf("the end of a batch: %w", err)
	}
	r.frames.SetDeadline(time.Now().Add(10 * time.Second))
	for {
		if err := r.frames.ReadInto(&r.record); err != nil {
			return fmt.Errorf("waiting for the end of a batch: %w", err)
		}
		frame := r.record.RawSample[8:][:binary.NativeEndian.Uint64(r.record.RawSample)]
		if string(frame) == string(end) {
			break
		}
		if r.inner != nil {
			frame = r.inner(frame)
		}
		fn(frame)
	}
	var lost uint64
	if err := r.lost.Lookup(uint32(0), &lost); err != nil || lost > 0 {
		return fmt.Errorf("%d frames arrived that the receiver did not take, %v", lost, err)
	}
	return nil
}
