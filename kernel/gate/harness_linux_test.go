package gate

import (
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// near makes a lab and a gate for its near namespace, where the device to guard is "near".
func near(t testing.TB) (*lab.Pair, Gate) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces")
	}
	p, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	if err := Probe(int(p.NS[0])); err != nil {
		cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	return p, Gate{Name: "postern", Owner: "postern, by its test", NetNS: int(p.NS[0])}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func install(t testing.TB, g Gate, devices ...Device) {
	t.Helper()
	must(t, g.Install(Config{Devices: devices}))
}

func status(t testing.TB, g Gate) State {
	t.Helper()
	s, err := g.Status()
	must(t, err)
	return s
}

// marker ends the frames that tests send, so that the kernel's own are not counted.
const marker = 0x706f7374

// inspector is a tcx program that counts the marked frames it gets from each guarded device
// and refuses them, or lets them go.
type inspector struct {
	t      testing.TB
	counts *ebpf.Map
	link   link.Link
}

// inspect attaches an inspector to the inspection device of the lab's near namespace.
func inspect(t testing.TB, p *lab.Pair, g Gate) *inspector {
	t.Helper()
	index, err := g.Inspection()
	must(t, err)
	i := &inspector{t: t}
	i.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 256})
	must(t, err)
	t.Cleanup(func() { i.counts.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: inspection(i.counts)})
	must(t, err)
	t.Cleanup(func() { program.Close() })
	must(t, p.Do(0, func() (err error) {
		i.link, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXEgress})
		return err
	}))
	t.Cleanup(func() { i.link.Close() })
	return i
}

// Offsets in struct __sk_buff.
const skbLen, skbIngressIfindex = 0, 36

// inspection returns the program. Element 0 of the map says whether marked frames are let
// go, the others count them by skb->ingress_ifindex.
func inspection(counts *ebpf.Map) asm.Instructions {
	key := asm.Instructions{
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
		asm.LoadMapPtr(asm.R1, counts.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
	}
	prog := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, skbLen, asm.Word), asm.Sub.Imm(asm.R2, 4),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -4), asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "let go"),
		asm.LoadMem(asm.R1, asm.RFP, -4, asm.Word),
		asm.JNE.Imm(asm.R1, marker, "let go"),
		asm.LoadMem(asm.R1, asm.R6, skbIngressIfindex, asm.Word),
		asm.StoreMem(asm.RFP, -8, asm.R1, asm.Word),
	}
	prog = append(prog, key...)
	prog = append(prog,
		asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.StoreImm(asm.RFP, -8, 0, asm.Word),
	)
	prog = append(prog, key...)
	return append(prog,
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, "let go"),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("drop"), // TCX_DROP
		asm.Return(),
		asm.LoadMem(asm.R1, asm.R6, skbIngressIfindex, asm.Word).WithSymbol("let go"),
		asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
	)
}

// letGo says what becomes of marked frames from now on.
func (i *inspector) letGo(yes bool) {
	i.t.Helper()
	var v uint64
	if yes {
		v = 1
	}
	must(i.t, i.counts.Put(uint32(0), v))
}

// seen returns how many marked frames came from a guarded device since it was last asked.
func (i *inspector) seen(ifindex int) int {
	i.t.Helper()
	var n uint64
	must(i.t, i.counts.Lookup(uint32(ifindex), &n))
	must(i.t, i.counts.Put(uint32(ifindex), uint64(0)))
	return int(n)
}

// receiver counts the marked frames that arrive at a device of the far namespace. It is
// an XDP program in the driver, since packet sockets do not see what an ifb sent on
// (skb_skip_tc_classify in __netif_receive_skb_core), nor generic XDP what was
// redirected (netif_receive_generic_xdp).
type receiver struct {
	t    testing.TB
	seen *ebpf.Map
	link link.Link
}

func receive(t testing.TB, p *lab.Pair, ifindex int) *receiver {
	t.Helper()
	r := &receiver{t: t}
	var err error
	r.seen, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(t, err)
	t.Cleanup(func() { r.seen.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Flags: unix.BPF_F_XDP_HAS_FRAGS, License: "GPL", Instructions: arrival(r.seen)})
	must(t, err)
	t.Cleanup(func() { program.Close() })
	must(t, p.Do(1, func() (err error) {
		r.link, err = link.AttachXDP(link.XDPOptions{Program: program, Interface: ifindex, Flags: link.XDPDriverMode})
		return err
	}))
	t.Cleanup(func() { r.link.Close() })
	return r
}

func arrival(seen *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1), asm.FnXdpGetBuffLen.Call(),
		asm.Mov.Reg(asm.R2, asm.R0), asm.Sub.Imm(asm.R2, 4), asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -4), asm.Mov.Imm(asm.R4, 4),
		asm.FnXdpLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.RFP, -4, asm.Word),
		asm.JNE.Imm(asm.R1, marker, "pass"),
		asm.StoreImm(asm.RFP, -8, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -8),
		asm.LoadMapPtr(asm.R1, seen.FD()), asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.Mov.Imm(asm.R1, 1), asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("pass"), // XDP_PASS
		asm.Return(),
	}
}

// count returns how many arrived since it was last asked. It waits until want are there,
// and then a little for those that are too many.
func (r *receiver) count(want int) int {
	r.t.Helper()
	var n uint64
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && n < uint64(want); time.Sleep(time.Millisecond) {
		must(r.t, r.seen.Lookup(uint32(0), &n))
	}
	time.Sleep(30 * time.Millisecond)
	must(r.t, r.seen.Lookup(uint32(0), &n))
	must(r.t, r.seen.Put(uint32(0), uint64(0)))
	return int(n)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
