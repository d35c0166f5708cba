package main

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// step is a program that does what the one before does, and one thing more that an engine like
// postern's cannot do without.
type step struct {
	name string
	ins  asm.Instructions
}

const (
	skbSK    = 168 // struct __sk_buff
	tcxNext  = -1
	headSize = 60
)

// steps lead from nothing to a verdict by look-up. R6 is the skb throughout.
func steps(scratch, hash, counters *ebpf.Map) []step {
	enter := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1), asm.StoreImm(asm.RFP, -4, 0, asm.Word)}
	lookup := func(m *ebpf.Map) asm.Instructions {
		return asm.Instructions{asm.LoadMapPtr(asm.R1, m.FD()), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "out")}
	}
	parts := []step{
		{"a tcx program that does nothing", nil},
		{"asks for the socket's family", asm.Instructions{asm.LoadMem(asm.R1, asm.R6, skbSK, asm.DWord), asm.JEq.Imm(asm.R1, 0, "out"),
			asm.LoadMem(asm.R0, asm.R1, 4, asm.Word), asm.JNE.Imm(asm.R0, 17, "out")}},
		{"finds its scratch area (a per-CPU array)", append(lookup(scratch), asm.Mov.Reg(asm.R7, asm.R0))},
		{"copies the frame's 60 bytes (bpf_skb_load_bytes)", asm.Instructions{asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Reg(asm.R3, asm.R7), asm.Mov.Imm(asm.R4, headSize), asm.FnSkbLoadBytes.Call()}},
		{"looks an address up in a hash of 10,000", append(asm.Instructions{asm.LoadMem(asm.R1, asm.R7, 28, asm.Word),
			asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word)}, lookup(hash)...)},
		{"counts (a per-CPU array)", append(append(asm.Instructions{asm.StoreImm(asm.RFP, -4, 0, asm.Word)}, lookup(counters)...),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord))},
	}
	sofar := enter
	for i := range parts {
		sofar = append(sofar[:len(sofar):len(sofar)], parts[i].ins...)
		parts[i].ins = append(sofar[:len(sofar):len(sofar)], asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("out"), asm.Return())
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
	hash, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 16, MaxEntries: uint32(n)})
	if err != nil {
		return err
	}
	defer hash.Close()
	for i := range int(n) {
		if err := hash.Put(n.address(i).As4(), make([]byte, 16)); err != nil {
			return err
		}
	}
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
		for i, st := range steps(scratch, hash, scratch) {
			if i > 0 {
				st.name = "… and " + st.name
			}
			if err := add(st.name, n.accepted(), func(w *world) error { return w.attach(st.ins) }); err != nil {
				return err
			}
		}
		for _, n := range []ruleset{1, n} {
			if err := add(fmt.Sprintf("postern by tc, %d rules", n), n.accepted(), func(w *world) error { return w.guard(n.postern("tc", "sink")) }); err != nil {
				return err
			}
		}
		if err := add("an nft chain without rules", n.accepted(), func(w *world) error { return w.nft(emptyChain) }); err != nil {
			return err
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

// attach puts a program on the device's tcx egress.
func (w *world) attach(ins asm.Instructions) error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: ins})
	if err != nil {
		return err
	}
	defer p.Close()
	return w.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: w.dev.Index, Program: p, Attach: ebpf.AttachTCXEgress})
		if err == nil {
			w.onClose(l.Close)
		}
		return err
	})
}
