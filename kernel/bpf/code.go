package bpf

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Registers with a fixed meaning in every function that this package emits.
// They survive calls of helpers; R7 and R8 are for the function itself.
const (
	regSKB     = asm.R6 // struct __sk_buff *
	regScratch = asm.R9 // the scratch area of this CPU
)

// label is a place in a function that jumps can lead to.
type label int

// code is one function under construction. Jumps are resolved by link, which
// also drops what cannot be reached: the verifier refuses dead code.
type code struct {
	name  string
	ins   asm.Instructions
	place []int         // by label: index into ins, -1 until mark
	jumps map[int]label // by index into ins

	decided func() // emits what follows when a rule has ended the walk
}

func newCode(name string) *code { return &code{name: name, jumps: map[int]label{}} }

func (c *code) label() label {
	c.place = append(c.place, -1)
	return label(len(c.place) - 1)
}

// mark puts the label before the next instruction.
func (c *code) mark(l label) { c.place[l] = len(c.ins) }

func (c *code) emit(ins ...asm.Instruction) { c.ins = append(c.ins, ins...) }

func (c *code) jump(ins asm.Instruction, to label) {
	c.jumps[len(c.ins)] = to
	c.ins = append(c.ins, ins)
}

func (c *code) ja(to label) { c.jump(asm.Instruction{OpCode: asm.Ja.Op(asm.ImmSource)}, to) }

// jif jumps if `r op v` holds for the unsigned 64-bit r; it may clobber R5.
func (c *code) jif(op asm.JumpOp, r asm.Register, v uint64, to label) {
	if v <= math.MaxInt32 {
		c.jump(asm.Instruction{OpCode: op.Op(asm.ImmSource), Dst: r, Constant: int64(v)}, to)
		return
	}
	c.emit(asm.LoadImm(asm.R5, int64(v), asm.DWord))
	c.jreg(op, r, asm.R5, to)
}

func (c *code) jreg(op asm.JumpOp, a, b asm.Register, to label) {
	c.jump(asm.Instruction{OpCode: op.Op(asm.RegSource), Dst: a, Src: b}, to)
}

// The scratch area: loads, stores and pointers into it.

func (c *code) ld(dst asm.Register, off int, size asm.Size) {
	c.emit(asm.LoadMem(dst, regScratch, int16(off), size))
}

func (c *code) st(off int, src asm.Register, size asm.Size) {
	c.emit(asm.StoreMem(regScratch, int16(off), src, size))
}

func (c *code) sti(off int, v int64, size asm.Size) {
	// asm.StoreImm refuses double words, which the kernel takes.
	c.emit(asm.Instruction{OpCode: asm.StoreImmOp(size), Dst: regScratch, Offset: int16(off), Constant: v})
}

func (c *code) ptr(dst asm.Register, off int) {
	c.mov(dst, regScratch)
	c.emit(asm.Add.Imm(dst, int32(off)))
}

// or sets bits of a word of the scratch area; it clobbers R0.
func (c *code) or(off int, bits int32) {
	c.ld(asm.R0, off, asm.Word)
	c.emit(asm.Or.Imm(asm.R0, bits))
	c.st(off, asm.R0, asm.Word)
}

// ldbe loads n bytes in network byte order, 1 to 8; it may read up to 8.
func (c *code) ldbe(dst asm.Register, off, n int) {
	c.ldbeAt(dst, regScratch, off, n)
}

func (c *code) ldbeAt(dst, base asm.Register, off, n int) {
	switch n {
	case 1:
		c.emit(asm.LoadMem(dst, base, int16(off), asm.Byte))
	case 2:
		c.emit(asm.LoadMem(dst, base, int16(off), asm.Half), asm.HostTo(asm.BE, dst, asm.Half))
	case 4:
		c.emit(asm.LoadMem(dst, base, int16(off), asm.Word), asm.HostTo(asm.BE, dst, asm.Word))
	default:
		c.emit(asm.LoadMem(dst, base, int16(off), asm.DWord), asm.HostTo(asm.BE, dst, asm.DWord))
		if n < 8 {
			c.emit(asm.RSh.Imm(dst, int32(64-8*n)))
		}
	}
}

func (c *code) mov(dst, src asm.Register) { c.emit(asm.Mov.Reg(dst, src)) }

func (c *code) imm(dst asm.Register, v uint64) {
	if v <= math.MaxInt32 {
		c.emit(asm.Mov.Imm(dst, int32(v)))
		return
	}
	c.emit(asm.LoadImm(dst, int64(v), asm.DWord))
}

// min lowers dst to at most v.
func (c *code) min(dst asm.Register, v uint64) {
	ok := c.label()
	c.jif(asm.JLE, dst, v, ok)
	c.imm(dst, v)
	c.mark(ok)
}

func (c *code) helper(fn asm.BuiltinFunc) { c.emit(fn.Call()) }

// call calls another function of the program with the two fixed registers.
func (c *code) call(name string) {
	c.mov(asm.R1, regSKB)
	c.mov(asm.R2, regScratch)
	c.emit(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoCall, Constant: -1}.WithReference(name))
}

// funcPtr loads the address of a callback.
func (c *code) funcPtr(dst asm.Register, name string) {
	c.emit(asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: dst, Src: asm.PseudoFunc, Constant: -1}.WithReference(name))
}

// mapPtr loads a map; the loader puts its descriptor in.
func (c *code) mapPtr(dst asm.Register, name string) {
	c.emit(asm.LoadMapPtr(dst, 0).WithReference(name))
}

func (c *code) ret() { c.emit(asm.Return()) }

func (c *code) retImm(v int32) {
	c.emit(asm.Mov.Imm(asm.R0, v))
	c.ret()
}

// prologue takes over the arguments of call. The function is a global one, which
// the verifier looks at by itself: the scratch area might be nil, for all it knows.
func (c *code) prologue() {
	ok := c.label()
	c.mov(regSKB, asm.R1)
	c.mov(regScratch, asm.R2)
	c.jif(asm.JNE, asm.R2, 0, ok)
	c.retImm(0)
	c.mark(ok)
}

// clear sets n bytes, a multiple of 8, to zero.
func (c *code) clear(off, n int) {
	for i := 0; i < n; i += 8 {
		c.sti(off+i, 0, asm.DWord)
	}
}

// same goes to differ unless maxBytes bytes at a and b are the same.
func (c *code) same(a, b int, differ label) {
	for i := 0; i < maxBytes; i += 8 {
		c.ld(asm.R0, a+i, asm.DWord)
		c.ld(asm.R1, b+i, asm.DWord)
		c.jreg(asm.JNE, asm.R0, asm.R1, differ)
	}
}

// maxJumps bounds the conditional jumps of one function, below the kernel's
// BPF_COMPLEXITY_LIMIT_JMP_SEQ (8192).
const maxJumps = 7500

// link resolves the jumps and gives the function its name and type.
func (c *code) link(fn *btf.Func) (asm.Instructions, error) {
	out, err := c.linkPlain()
	if err != nil {
		return nil, err
	}
	out[0] = btf.WithFuncMetadata(out[0].WithSymbol(c.name), fn)
	return out, nil
}

// linkPlain resolves the jumps.
func (c *code) linkPlain() (asm.Instructions, error) {
	keep := c.reachable()
	// offset[i] is where instruction i will stand, in units of 8 bytes.
	offset, at := make([]int, len(c.ins)+1), 0
	for i := range c.ins {
		offset[i] = at
		if to, jumps := c.jumps[i]; jumps && keep[i] && c.ins[i].OpCode.JumpOp() == asm.Ja && c.nextKept(keep, i+1) == c.nextKept(keep, c.place[to]) {
			keep[i] = false // to the next instruction
		}
		if keep[i] {
			at += int(c.ins[i].Width())
		}
	}
	offset[len(c.ins)] = at
	out := make(asm.Instructions, 0, len(c.ins))
	for i, ins := range c.ins {
		if !keep[i] {
			continue
		}
		if to, ok := c.jumps[i]; ok {
			d := offset[c.place[to]] - offset[i] - 1
			if d < math.MinInt16 || d > math.MaxInt16 {
				return nil, fmt.Errorf("function %s has %d instructions, more than a jump can span: %w", c.name, at, ErrTooLarge)
			}
			ins.Offset = int16(d)
		}
		out = append(out, ins)
	}
	if n := len(c.jumps); n > maxJumps {
		return nil, fmt.Errorf("function %s has %d jumps, more than the %d that the verifier follows: %w", c.name, n, maxJumps, ErrTooLarge)
	}
	return out, nil
}

func (c *code) nextKept(keep []bool, i int) int {
	for i < len(keep) && !keep[i] {
		i++
	}
	return i
}

// reachable marks the instructions that control flow can reach.
func (c *code) reachable() []bool {
	seen := make([]bool, len(c.ins))
	work := []int{0}
	for len(work) > 0 {
		i := work[len(work)-1]
		work = work[:len(work)-1]
		for i < len(c.ins) && !seen[i] {
			seen[i] = true
			to, jumps := c.jumps[i]
			if jumps {
				work = append(work, c.place[to])
			}
			op := c.ins[i].OpCode
			if jumps && op.JumpOp() == asm.Ja || op.Class() == asm.JumpClass && op.JumpOp() == asm.Exit {
				break
			}
			i++
		}
	}
	return seen
}
