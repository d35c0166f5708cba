//go:build linux

package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

// ARP is a frame that came in at a port.
type ARP struct {
	// At is a CLOCK_BOOTTIME instant in nanoseconds, the kernel's.
	At        int64
	Port      int // the interface's index
	Op        uint16
	Sender    netip.Addr
	SenderMAC net.HardwareAddr
	Target    netip.Addr
}

// Observer sees every untagged ARP frame that comes in at the ports of a bridge, in the order in
// which they came, before anything else does: as Receiver, it is in the driver.
type Observer struct {
	events  *ebpf.Map
	program *ebpf.Program
	links   []link.Link
	frames  *ringbuf.Reader
	done    chan struct{}

	mu   sync.Mutex
	seen []ARP
}

// Observe begins to look at ports in the namespace. The caller closes it.
func (n *Namespace) Observe(ports ...*net.Interface) (o *Observer, err error) {
	o = &Observer{done: make(chan struct{})}
	defer func() {
		if err != nil {
			o.Close()
			o, err = nil, fmt.Errorf("lab: observer: %w", err)
		}
	}()
	if o.events, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 8 << 20}); err != nil {
		return o, err
	}
	if o.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: observe(o.events)}); err != nil {
		return o, err
	}
	for _, p := range ports {
		err = n.Do(func() error {
			l, err := link.AttachXDP(link.XDPOptions{Program: o.program, Interface: p.Index, Flags: link.XDPDriverMode})
			if err == nil {
				o.links = append(o.links, l)
			}
			return err
		})
		if err != nil {
			return o, err
		}
	}
	if o.frames, err = ringbuf.NewReader(o.events); err != nil {
		return o, err
	}
	go o.read()
	return o, nil
}

// The record: time, ifindex, and the frame's first 42 bytes.
const (
	arpBytes    = 42
	recordBytes = 64
)

func (o *Observer) read() {
	defer close(o.done)
	var rec ringbuf.Record
	for {
		if o.frames.ReadInto(&rec) != nil {
			return
		}
		b := rec.RawSample
		f := b[16 : 16+arpBytes]
		o.mu.Lock()
		o.seen = append(o.seen, ARP{
			At: int64(binary.NativeEndian.Uint64(b)), Port: int(binary.NativeEndian.Uint32(b[8:])), Op: binary.BigEndian.Uint16(f[20:]),
			SenderMAC: slices.Clone(f[22:28]), Sender: netip.AddrFrom4([4]byte(f[28:32])), Target: netip.AddrFrom4([4]byte(f[38:42])),
		})
		o.mu.Unlock()
	}
}

// Seen is what came so far, from the n-th on.
func (o *Observer) Seen(n int) []ARP {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen[min(n, len(o.seen)):])
}

// Since is what came at an instant or later.
func (o *Observer) Since(at int64) []ARP {
	o.mu.Lock()
	defer o.mu.Unlock()
	// Two CPUs may have written in another order than they read the clock: a little earlier, then.
	i := sort.Search(len(o.seen), func(i int) bool { return o.seen[i].At >= at-int64(time.Millisecond) })
	return slices.DeleteFunc(slices.Clone(o.seen[i:]), func(f ARP) bool { return f.At < at })
}

// Close ends the looking.
func (o *Observer) Close() error {
	var errs []error
	for _, l := range o.links {
		errs = append(errs, l.Close())
	}
	if o.frames != nil {
		errs = append(errs, o.frames.Close())
		<-o.done
	}
	if o.program != nil {
		errs = append(errs, o.program.Close())
	}
	return errors.Join(append(errs, o.events.Close())...)
}

func observe(events *ebpf.Map) asm.Instructions {
	const at = -recordBytes
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Mov.Imm(asm.R0, 0), asm.StoreMem(asm.RFP, at+8, asm.R0, asm.DWord), asm.StoreMem(asm.RFP, at+56, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, at+16),
		asm.Mov.Imm(asm.R4, arpBytes),
		asm.FnXdpLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R0, asm.RFP, at+16+12, asm.Half),
		asm.JNE.Imm(asm.R0, int32(binary.NativeEndian.Uint16([]byte{8, 6})), "pass"),
		asm.FnKtimeGetBootNs.Call(),
		asm.StoreMem(asm.RFP, at, asm.R0, asm.DWord),
		asm.LoadMem(asm.R0, asm.R6, 12, asm.Word), // xdp_md.ingress_ifindex
		asm.StoreMem(asm.RFP, at+8, asm.R0, asm.DWord),
		asm.LoadMapPtr(asm.R1, events.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, at),
		asm.Mov.Imm(asm.R3, recordBytes),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
		asm.Return(),
	}
}
