package bpf

import (
	"fmt"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

// standField compares v with every occurrence of another field outside of options.
func (g *gen) standField(c *code, v operand, t test, yes, no label) {
	other := *t.other
	left := g.keepLeft(c, v, other)
	g.occurrences(c, other.Field, func(w operand, next label) {
		if w, ok := g.refer(c, other, w, next); ok {
			g.compareLeft(c, left, w, t.op, yes, next)
		}
	})
	c.ja(no)
}

// keepLeft puts the left side of a comparison of two fields where no other operand will
// be: a number at sNum2, bytes at sLeft unless their place is their own.
func (g *gen) keepLeft(c *code, v operand, other filter.Ref) operand {
	if v.kind == inReg && v.typ == other.Type() {
		c.st(sNum2, regValue, asm.DWord)
		return v
	}
	v = c.octets(v).apart()
	switch {
	case v.n >= 0:
		v = g.toMem(c, v, sLeft)
		if v.mem < sData || v.mem == sLeft {
			return v
		}
		c.copy(sLeft, v.mem, v.n)
	case v.kind == inFrame:
		if unbounded(other) {
			g.fail(fmt.Errorf("a comparison with %s, both sides of which may have more than %d bytes: %w", other, maxBytes, ErrTooLarge))
		}
		c.keepLength(v, sLeftLen)
		g.toMemAll(c, v, sLeft)
	default:
		c.keepLength(v, sLeftLen)
		c.copy(sLeft, v.mem, v.most)
	}
	return operand{typ: v.typ, kind: inMem, mem: sLeft, most: v.most, n: v.n, lenSlot: sLeftLen}
}

// apart is v with the bytes in the frame in place of those that have others behind them.
func (v operand) apart() operand {
	if v.kind == inMem && v.n < 0 && v.most == 0 {
		v.kind = inFrame
	}
	return v
}

// unbounded reports whether a value of the reference may have more than maxBytes.
func unbounded(r filter.Ref) bool {
	if r.Field.Type != filter.TypeProtocol || r.Slice != nil && (r.Slice.Len > 0 || r.Slice.Off < 0) {
		return false
	}
	switch r.Field.At[0].Layer {
	case filter.LayerEth, filter.LayerVLAN, filter.LayerLLC, filter.LayerIPv4, filter.LayerUDP:
		return false
	}
	return true
}

func (c *code) keepLength(v operand, slot int) {
	c.ld(asm.R1, v.lenSlot, asm.Word)
	c.st(slot, asm.R1, asm.Word)
}

// copy copies n bytes within the scratch area, and up to 7 more.
func (c *code) copy(to, from, n int) {
	for i := 0; i < n; i += 8 {
		c.ld(asm.R0, from+i, asm.DWord)
		c.st(to+i, asm.R0, asm.DWord)
	}
}

// toMemAll brings bytes of an unknown number to buf, zeros behind, as far as maxBytes.
func (g *gen) toMemAll(c *code, v operand, buf int) {
	c.clear(buf, maxBytes+8)
	c.ld(asm.R2, v.atSlot, asm.Word)
	if v.atAdd != 0 {
		c.emit(asm.Add.Imm(asm.R2, int32(v.atAdd)))
	}
	c.ld(asm.R4, v.lenSlot, asm.Word)
	c.min(asm.R4, maxBytes)
	v.n = -1
	g.fetchFrame(c, v, buf)
}

// compareLeft goes to yes if `left op w` holds.
func (g *gen) compareLeft(c *code, left, w operand, op filter.Op, yes, no label) {
	lt, eq, gt := byOrder(op, yes, no)
	switch {
	case left.kind == inReg:
		c.ld(asm.R4, sNum2, asm.DWord)
		c.jreg(jumps[op], asm.R4, regValue, yes)
		c.ja(no)
		return
	case w.typ == filter.TypeString:
		c.orderTexts(left, w, lt, eq, gt)
		return
	}
	w = c.octets(w).apart()
	switch {
	case left.n >= 0 && w.n >= 0 && left.n != w.n:
		c.ja(map[bool]label{true: lt, false: gt}[left.n < w.n])
		return
	case left.n >= 0 && w.n >= 0:
		w = g.toMem(c, w, sTmp)
		c.orderWords(left.mem, w.mem, left.n, lt, gt)
		c.ja(eq)
		return
	}
	c.lengthOf(asm.R1, left)
	c.lengthOf(asm.R2, w)
	c.jreg(asm.JLT, asm.R1, asm.R2, lt)
	c.jreg(asm.JGT, asm.R1, asm.R2, gt)
	switch {
	case left.n >= 0 || w.n >= 0:
		w.n = max(left.n, w.n)
		w = g.toMem(c, w, sTmp)
		c.orderWords(left.mem, w.mem, w.n, lt, gt)
	case w.kind == inFrame:
		g.toMemAll(c, w, sTmp)
		c.orderPadded(left.mem, sTmp, maxBytes, left.lenSlot, lt, eq, gt)
	default:
		c.orderPadded(left.mem, w.mem, min(maxBytes, w.most), left.lenSlot, lt, eq, gt)
	}
	c.ja(eq)
}

func (c *code) lengthOf(dst asm.Register, v operand) {
	if v.n >= 0 {
		c.imm(dst, uint64(v.n))
		return
	}
	c.ld(dst, v.lenSlot, asm.Word)
}

// orderWords compares n bytes, eight at a time.
func (c *code) orderWords(left, right, n int, lt, gt label) {
	for i := 0; i < n; i += 8 {
		n := min(8, n-i)
		c.ldbe(regValue, left+i, n)
		c.ldbe(asm.R4, right+i, n)
		c.jreg(asm.JLT, regValue, asm.R4, lt)
		c.jreg(asm.JGT, regValue, asm.R4, gt)
	}
}

// orderPadded compares as many bytes as lenSlot says, at most n, with zeros behind them.
func (c *code) orderPadded(left, right, n, lenSlot int, lt, eq, gt label) {
	c.ld(asm.R2, lenSlot, asm.Word)
	for i := 0; i < n; i += 8 {
		c.jif(asm.JLE, asm.R2, uint64(i), eq)
		c.orderWords(left+i, right+i, 8, lt, gt)
	}
}

// orderTexts compares texts, which have no NUL within and zeros behind them: one that
// ends before the other differs from it there.
func (c *code) orderTexts(left, w operand, lt, eq, gt label) {
	c.ld(asm.R2, left.lenSlot, asm.Word)
	for i := 0; i < min(left.most, w.most, maxBytes); i += 8 {
		c.jif(asm.JLT, asm.R2, uint64(i), eq)
		c.orderWords(left.mem+i, w.mem+i, 8, lt, gt)
	}
	c.ja(eq)
}
