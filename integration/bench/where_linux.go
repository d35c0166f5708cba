package main

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/postern-fw/postern/kernel/gate"
)

// step is a program that does what the one before does, and one thing more that an engine like
// postern's cannot do without.
type step struct {
	name string
	ins  asm.Instructions
}

// Places in struct __sk_buff, and more.
const (
	skbIngressIfindex, skbData, skbDataEnd, skbSK = 36, 76, 80, 168

	tcxNext   = -1
	headSize  = 60
	tableSize = 1 << 14
)

// steps lead from nothing to a verdict by look-up. R6 is the skb throughout, R7 the scratch area.
func steps(scratch, table, counters *ebpf.Map) []step {
	lookup := func(m *ebpf.Map) asm.Instructions {
		return asm.Instructions{asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out")}
	}
	data := asm.Instructions{asm.LoadMem(asm.R2, asm.R6, skbData, asm.Word), asm.LoadMem(asm.R3, asm.R6, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R2), asm.Add.Imm(asm.R1, headSize)}
	read := slices.Concat(data, asm.Instructions{
		asm.JLE.Reg(asm.R1, asm.R3, "own"),
		asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, headSize), asm.FnSkbPullData.Call(), asm.Ja.Label("own"),
	})
	again := slices.Concat(data, asm.Instructions{asm.JGT.Reg(asm.R1, asm.R3, "out")})
	again[0] = again[0].WithSymbol("own")
	read = append(read, again...)
	for i := range int16(headSize / 4) {
		read = append(read, asm.LoadMem(asm.R0, asm.R2, 4*i, asm.Word), asm.StoreMem(asm.R7, 4*i, asm.R0, asm.Word))
	}
	parts := []step{
		{"a tcx program that does nothing", nil},
		{"asks for the socket's family", asm.Instructions{asm.LoadMem(asm.R1, asm.R6, skbSK, asm.DWord), asm.JEq.Imm(asm.R1, 0, "out"),
			asm.LoadMem(asm.R0, asm.R1, 4, asm.Word), asm.JNE.Imm(asm.R0, 17, "out")}},
		{"finds its scratch area (a per-CPU array)", append(lookup(scratch), asm.Mov.Reg(asm.R7, asm.R0))},
		{"copies the frame's 60 bytes, once they are the kernel's own (bpf_skb_pull_data, for TX_RING)", read},
		{"looks the address up (an array of 16,384)", append(asm.Instructions{asm.LoadMem(asm.R1, asm.R7, 28, asm.Word),
			asm.Mul.Imm(asm.R1, 0x1e35a7bd), asm.RSh.Imm(asm.R1, 8), asm.And.Imm(asm.R1, tableSize-1), asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word)}, lookup(table)...)},
		{"counts (a per-CPU array)", append(append(asm.Instructions{asm.StoreImm(asm.RFP, -4, 0, asm.Word)}, lookup(counters)...),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord))},
	}
	sofar := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.StoreImm(asm.RFP, -4, 0, asm.Word)}
	for i := range parts {
		sofar = slices.Concat(sofar, parts[i].ins)
		parts[i].ins = slices.Concat(sofar, asm.Instructions{asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("out"), asm.Return()})
	}
	return parts
}

// whereItGoes puts the steps side by side with postern's own program.
func whereItGoes(b *bench) error {
	s := b.stage()
	defer s.close()
	const n = ruleset(10_000)
	scratch, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 4096, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer scratch.Close()
	table, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: tableSize})
	if err != nil {
		return err
	}
	defer table.Close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	for _, how := range []way{byRing, bySendto} {
		base, err := s.sender(bare, "bare", how, n.accepted())
		if err != nil {
			return err
		}
		add := func(name string, frame []byte, guard func(*world) error) error {
			w, err := s.world(guard)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			side, err := s.sender(w, name, how, frame)
			if err == nil {
				s.versus(base, side, 0)
			}
			return err
		}
		for i, st := range steps(scratch, table, scratch) {
			if i > 0 {
				st.name = "… and " + st.name
			}
			if err := add(st.name, n.accepted(), func(w *world) error { return w.attach(st.ins) }); err != nil {
				return err
			}
		}
		for _, n := range []ruleset{1, n} {
			if err := add(fmt.Sprint("postern by tc, ", n), n.accepted(), func(w *world) error { return w.guard(n.postern("tc", "sink")) }); err != nil {
				return err
			}
		}
		if err := add("an nft chain without rules", n.accepted(), func(w *world) error { return w.nft(emptyChain) }); err != nil {
			return err
		}
		if err := add("a gate whose program lets everything go", n.accepted(), (*world).openGate); err != nil {
			return err
		}
		for _, n := range []ruleset{1, n} {
			if err := add(fmt.Sprint("postern by the gate, ", n), n.accepted(), func(w *world) error { return w.guard(n.postern("gate", "sink")) }); err != nil {
				return err
			}
		}
		if err := s.measure(section{
			ID: "where-" + short[how], Title: "Where the time goes, by " + string(how),
			Text: "Each program does what the one above it does, and one thing more that no engine of this kind can do without.",
		}, b.course()); err != nil {
			return err
		}
	}
	return nil
}

// openGate is kernel/gate with a program that judges nothing.
func (w *world) openGate() error {
	g := gate.Gate{Name: "bench", Owner: "postern's benchmark", NetNS: int(w.NS[0])}
	inspection, err := g.Inspection()
	if err != nil {
		return err
	}
	if err := w.attachTo(inspection, asm.Instructions{
		asm.LoadMem(asm.R1, asm.R1, skbIngressIfindex, asm.Word), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return(),
	}); err != nil {
		return err
	}
	w.onClose(g.Remove)
	return g.Install(gate.Config{Devices: []gate.Device{{Name: "sink"}}})
}

// attach puts a program on the device's tcx egress.
func (w *world) attach(ins asm.Instructions) error { return w.attachTo(w.dev.Index, ins) }

func (w *world) attachTo(ifindex int, ins asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: ins})
	if err != nil {
		return err
	}
	defer p.Close()
	return w.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: p, Attach: ebpf.AttachTCXEgress})
		if err == nil {
			w.onClose(l.Close)
		}
		return err
	})
}
