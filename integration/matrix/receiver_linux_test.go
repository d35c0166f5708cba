package matrix

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// receiver copies all frames that arrive at the far device. It is an XDP program in the
// driver, since packet sockets do not see what an ifb sent on (skb_skip_tc_classify in
// __netif_receive_skb_core), nor generic XDP what was redirected
// (netif_receive_generic_xdp).
type receiver struct {
	t      testing.TB
	frames *ringbuf.Reader
}

// room is for a frame and, before it, its length.
const room = 2048

func receive(t testing.TB, p *lab.Pair) *receiver {
	t.Helper()
	events, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4 << 20})
	must(t, err)
	t.Cleanup(func() { events.Close() })
	scratch, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: room, MaxEntries: 1})
	must(t, err)
	t.Cleanup(func() { scratch.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL", Instructions: arrival(events, scratch)})
	must(t, err)
	t.Cleanup(func() { program.Close() })
	must(t, p.Do(1, func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: program, Interface: p.Ifi[1].Index, Flags: link.XDPDriverMode})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	r, err := ringbuf.NewReader(events)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return &receiver{t, r}
}

func arrival(events, scratch *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, scratch.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.FnXdpGetBuffLen.Call(),
		asm.JGT.Imm(asm.R0, room-8, "pass"),
		asm.JLT.Imm(asm.R0, 1, "pass"),
		asm.StoreMem(asm.R7, 0, asm.R0, asm.DWord),
		asm.Mov.Reg(asm.R4, asm.R0),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.R7), asm.Add.Imm(asm.R3, 8),
		asm.FnXdpLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMapPtr(asm.R1, events.FD()),
		asm.Mov.Reg(asm.R2, asm.R7), asm.Mov.Imm(asm.R3, room), asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
		asm.Return(),
	}
}

// drain adds what arrived to the counts, until nothing came for a while.
func (r *receiver) drain(counts map[string]int) {
	r.t.Helper()
	for {
		r.frames.SetDeadline(time.Now().Add(30 * time.Millisecond))
		rec, err := r.frames.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		must(r.t, err)
		n := binary.NativeEndian.Uint64(rec.RawSample)
		counts[string(rec.RawSample[8:8+n])]++
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
