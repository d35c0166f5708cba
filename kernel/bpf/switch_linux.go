package bpf

import (
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Switch is a program that hands every frame to one program until a deadline, and to another
// from then on: the kernel itself goes back to what was before, whoever is still alive.
type Switch struct {
	prog     *ebpf.Program
	programs *ebpf.Map
}

// NewSwitch loads a switch. Instead of a program that is nil, it lets the frame go as the hook
// does: gate is true for that of the inspection device. until is CLOCK_BOOTTIME in nanoseconds.
// The programs stay the caller's. The switch works as long as it is open or pinned: see Pin.
func NewSwitch(now, before *ebpf.Program, until int64, gate bool) (_ *Switch, err error) {
	s := &Switch{}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.programs, err = ebpf.NewMap(&ebpf.MapSpec{Name: "switch", Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 2})
	if err != nil {
		return nil, fmt.Errorf("making the array of programs: %w", err)
	}
	for i, p := range []*ebpf.Program{now, before} {
		if p == nil {
			continue
		}
		if err := s.programs.Put(uint32(i), p); err != nil {
			return nil, fmt.Errorf("putting a program into the array: %w", err)
		}
	}
	c := newCode("postern_switch")
	back := c.label()
	c.mov(regSKB, asm.R1)
	c.helper(asm.FnKtimeGetBootNs)
	c.emit(asm.LoadImm(asm.R1, until, asm.DWord))
	c.jreg(asm.JGE, asm.R0, asm.R1, back)
	s.hand(c, 0, now, gate)
	c.mark(back)
	s.hand(c, 1, before, gate)
	ins, err := c.linkPlain()
	if err != nil {
		return nil, err
	}
	s.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Name: c.name, Type: ebpf.SchedCLS, Instructions: ins, License: "Dual MIT/GPL"})
	if err != nil {
		return nil, fmt.Errorf("loading the switch: %w", err)
	}
	return s, nil
}

// hand emits the call of one program, or what is done where nobody is to judge. A call that
// fails finds the array emptied, and the frame is dropped.
func (s *Switch) hand(c *code, i int, p *ebpf.Program, gate bool) {
	if p == nil {
		(&gen{opt: Options{Gate: gate}}).skip(c)
		return
	}
	c.mov(asm.R1, regSKB)
	c.emit(asm.LoadMapPtr(asm.R2, s.programs.FD()), asm.Mov.Imm(asm.R3, int32(i)))
	c.helper(asm.FnTailCall)
	c.retImm(actShot)
}

// Program is what to attach. It belongs to the switch.
func (s *Switch) Program() *ebpf.Program { return s.prog }

// Pin keeps the switch in a directory of a bpffs. The kernel empties an array of programs that
// nobody has open or pinned: frames are dropped then.
func (s *Switch) Pin(dir, name string) error {
	if err := s.programs.Pin(filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("pinning the switch: %w", err)
	}
	return nil
}

// Close forgets the switch.
func (s *Switch) Close() {
	s.programs.Close()
	if s.prog != nil {
		s.prog.Close()
	}
}
