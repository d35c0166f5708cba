package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

// regValue holds a number that was read.
const regValue = asm.R3

// maxBytes is how many bytes of a value can be compared.
const maxBytes = 256

// operand is one occurrence of a field, as the code being emitted has it.
type operand struct {
	typ  filter.Type
	kind place
	// mem is where the bytes stand in the scratch area, for inMem; most is how
	// many may stand there, with zeros behind, for text.
	mem, most int
	// n is the number of bytes; if negative, it is at lenSlot in the scratch area.
	n, lenSlot int
	// atSlot is where the scratch area says where in the frame the bytes are, for
	// inFrame and, if it is not 0, for inMem; they begin atAdd bytes behind that.
	atSlot, atAdd int
}

// place is where an operand's value is.
type place uint8

const (
	inReg   place = iota // a number in regValue
	inMem                // bytes in the scratch area
	inFrame              // bytes in the frame
)

func number(t filter.Type) operand { return operand{typ: t} }

// refer applies the slice and the mask of a reference to an occurrence of its
// field; it goes to outside if the value is too short for the slice. It reports
// false if every value would be.
func (g *gen) refer(c *code, r filter.Ref, v operand, outside label) (operand, bool) {
	if r.Slice != nil {
		var ok bool
		if v, ok = g.slice(c, *r.Slice, v, outside); !ok {
			c.ja(outside)
			return v, false
		}
		if r.Mask != 0 {
			g.toNumber(c, v)
			v = number(filter.TypeUint)
		}
	}
	if r.Mask != 0 {
		c.and(regValue, r.Mask)
	}
	return v, true
}

// and keeps the bits of the mask; it may clobber R5.
func (c *code) and(r asm.Register, mask uint64) {
	if mask <= math.MaxInt32 {
		c.emit(asm.And.Imm(r, int32(mask)))
		return
	}
	c.emit(asm.LoadImm(asm.R5, int64(mask), asm.DWord), asm.And.Reg(r, asm.R5))
}

// slice is filter.Slice.of.
func (g *gen) slice(c *code, s filter.Slice, v operand, outside label) (operand, bool) {
	v = c.octets(v)
	v.typ = filter.TypeBytes
	if v.n >= 0 {
		off, n := s.Off, s.Len
		if off < 0 {
			off += v.n
		}
		if n < 0 {
			n = v.n - off
		}
		if off < 0 || n < 1 || off+n > v.n {
			return v, false
		}
		v.mem, v.atAdd, v.n = v.mem+off, v.atAdd+off, n
		return v, true
	}
	c.ld(asm.R1, v.lenSlot, asm.Word)
	switch {
	case s.Off >= 0 && s.Len > 0:
		c.jif(asm.JLT, asm.R1, uint64(s.Off+s.Len), outside)
		v.n = s.Len
	case s.Off >= 0:
		c.jif(asm.JLE, asm.R1, uint64(s.Off), outside)
		c.emit(asm.Sub.Imm(asm.R1, int32(s.Off)))
		c.st(sSize, asm.R1, asm.Word)
		v.lenSlot = sSize
	default:
		return g.sliceFromEnd(c, s, v, outside)
	}
	v.mem, v.atAdd = v.mem+s.Off, v.atAdd+s.Off
	v.most = max(v.most-s.Off, 0)
	return v, true
}

// sliceFromEnd is a slice whose offset is negative, of a value whose length is in R1.
func (g *gen) sliceFromEnd(c *code, s filter.Slice, v operand, outside label) (operand, bool) {
	n := s.Len
	if n < 0 {
		n = -s.Off
	}
	if n > -s.Off || v.atSlot == 0 && -s.Off > v.most {
		return v, false
	}
	c.jif(asm.JLT, asm.R1, uint64(-s.Off), outside)
	if v.atSlot == 0 { // text that is not in the frame
		c.min(asm.R1, uint64(v.most))
		c.emit(asm.Add.Reg(asm.R1, regScratch))
		for i := range n {
			c.emit(asm.LoadMem(asm.R0, asm.R1, int16(v.mem+s.Off+i), asm.Byte))
			c.st(sTmp+i, asm.R0, asm.Byte)
		}
		return operand{typ: filter.TypeBytes, kind: inMem, mem: sTmp, n: n}, true
	}
	c.ld(asm.R2, v.atSlot, asm.Word)
	c.emit(asm.Add.Reg(asm.R1, asm.R2), asm.Add.Imm(asm.R1, int32(s.Off+v.atAdd)))
	c.st(sAt, asm.R1, asm.Word)
	return operand{typ: filter.TypeBytes, kind: inFrame, n: n, atSlot: sAt}, true
}

// octets gives a number its bytes on the wire.
func (c *code) octets(v operand) operand {
	if v.kind != inReg {
		return v
	}
	width := map[filter.Type]int{filter.TypeMAC: 6, filter.TypeIPv4: 4}[v.typ]
	c.mov(asm.R1, regValue)
	c.emit(asm.HostTo(asm.BE, asm.R1, asm.DWord))
	c.st(sNum, asm.R1, asm.DWord)
	return operand{typ: v.typ, kind: inMem, mem: sNum + 8 - width, n: width}
}

// toNumber loads 1 to 8 bytes into regValue.
func (g *gen) toNumber(c *code, v operand) {
	v = g.toMem(c, v, sTmp)
	c.ldbe(regValue, v.mem, v.n)
}

// toMem brings bytes of a known number into the scratch area, to buf if they are
// not there yet.
func (g *gen) toMem(c *code, v operand, buf int) operand {
	if v.kind != inFrame {
		return v
	}
	if v.n > maxBytes {
		g.fail(fmt.Errorf("a comparison of %d bytes, more than %d: %w", v.n, maxBytes, ErrTooLarge))
		return operand{typ: v.typ, kind: inMem, mem: buf, n: maxBytes}
	}
	c.ld(asm.R2, v.atSlot, asm.Word)
	if v.atAdd != 0 {
		c.emit(asm.Add.Imm(asm.R2, int32(v.atAdd)))
	}
	g.fetchFrame(c, v, buf)
	return operand{typ: v.typ, kind: inMem, mem: buf, n: v.n}
}

// fetchFrame is fetch of v.n bytes, or of R4, at most maxBytes, where that is negative;
// those that begin before the network layer may be of a tag that was put back.
func (g *gen) fetchFrame(c *code, v operand, buf int) {
	plain := func() {
		if v.n >= 0 {
			c.fetchAll(buf, v.n)
		} else {
			c.fetch(buf, maxBytes)
		}
	}
	early := v.atSlot == sAt || v.atSlot >= sTagAt && v.atSlot < sTagLen || v.atSlot == layerAt(filter.LayerFrame) && v.atAdd < 16
	if !early {
		plain()
		return
	}
	late, done := c.label(), c.label()
	c.ld(asm.R0, sShift, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, late)
	c.jif(asm.JGE, asm.R2, 16, late)
	c.mov(asm.R3, asm.R2)
	if v.n >= 0 {
		c.imm(asm.R4, uint64(v.n))
	}
	c.imm(asm.R5, uint64(buf))
	c.call(fnTagged)
	g.needs(fnTagged, tagged)
	c.ja(done)
	c.mark(late)
	plain()
	c.mark(done)
}

// fnTagged copies R4 bytes, 1 to maxBytes, of a frame with a tag put back, from
// R3 on, which is below 16, to the scratch area at R5, which is sTmp or sLeft.
const fnTagged = "tagged_bytes"

func tagged() *code {
	c := newCode(fnTagged)
	buf, loop, copied, done := c.label(), c.label(), c.label(), c.label()
	c.prologue()
	c.ptr(asm.R7, sTmp)
	c.jif(asm.JEq, asm.R5, sTmp, buf)
	c.ptr(asm.R7, sLeft)
	c.mark(buf)
	c.jif(asm.JGT, asm.R3, 15, done)
	c.jif(asm.JGT, asm.R4, maxBytes, done)
	c.mark(loop)
	c.jif(asm.JEq, asm.R4, 0, done)
	c.jif(asm.JGE, asm.R3, 16, copied)
	c.mov(asm.R1, regScratch)
	c.emit(asm.Add.Reg(asm.R1, asm.R3))
	c.emit(asm.LoadMem(asm.R0, asm.R1, sFirst, asm.Byte), asm.StoreMem(asm.R7, 0, asm.R0, asm.Byte))
	c.emit(asm.Add.Imm(asm.R7, 1), asm.Add.Imm(asm.R3, 1), asm.Sub.Imm(asm.R4, 1))
	c.ja(loop)
	c.mark(copied)
	c.jif(asm.JGT, asm.R4, maxBytes, done)
	c.imm(asm.R2, 12)
	c.still(func() {
		c.ld(asm.R4, sFetchN, asm.Word)
		c.jif(asm.JGT, asm.R4, maxBytes, done)
		c.jif(asm.JEq, asm.R4, 0, done)
	})
	c.mov(asm.R1, regSKB)
	c.imm(asm.R2, 12)
	c.mov(asm.R3, asm.R7)
	c.helper(asm.FnSkbLoadBytes)
	c.mark(done)
	c.retImm(0)
	return c
}

// order3 compares bytes, or text, with a constant: filter's order.
func (g *gen) order3(c *code, v operand, want []byte, text bool, lt, eq, gt label) {
	if text {
		g.orderText(c, v, want, lt, eq, gt)
		return
	}
	if v.n < 0 {
		c.ld(asm.R1, v.lenSlot, asm.Word)
		c.jif(asm.JLT, asm.R1, uint64(len(want)), lt)
		c.jif(asm.JGT, asm.R1, uint64(len(want)), gt)
	} else if v.n != len(want) {
		c.ja(map[bool]label{true: lt, false: gt}[v.n < len(want)])
		return
	}
	v.n = len(want)
	if v.n == 0 {
		c.ja(eq)
		return
	}
	v = g.toMem(c, v, sTmp)
	c.words(v.mem, want[:min(len(want), v.n)], lt, gt)
	c.ja(eq)
}

// words compares the bytes at mem with want, eight at a time.
func (c *code) words(mem int, want []byte, lt, gt label) {
	for i := 0; i < len(want); i += 8 {
		n := min(8, len(want)-i)
		var b [8]byte
		copy(b[8-n:], want[i:i+n])
		c.ldbe(regValue, mem+i, n)
		c.imm(asm.R4, binary.BigEndian.Uint64(b[:]))
		c.jreg(asm.JLT, regValue, asm.R4, lt)
		c.jreg(asm.JGT, regValue, asm.R4, gt)
	}
}

// orderText compares text, which has zeros behind it and none within, with a
// constant: the first difference decides, and the shorter ends in a zero.
func (g *gen) orderText(c *code, v operand, want []byte, lt, eq, gt label) {
	if n := bytes.IndexByte(want, 0); n >= 0 {
		want, eq = want[:n], lt
	}
	if v.kind != inMem || v.most == 0 {
		g.refuse("a comparison of text that is not at a place of its own (%q)", want)
		return
	}
	padded := make([]byte, min(len(want)+1, v.most))
	copy(padded, want)
	c.words(v.mem, padded, lt, gt)
	c.ja(eq)
}

// refuse notes that the rule being compiled needs what this engine cannot do.
func (g *gen) refuse(format string, args ...any) {
	g.fail(fmt.Errorf("%w: %s", ErrNotSupported, fmt.Sprintf(format, args...)))
}

func (g *gen) fail(err error) {
	if g.err == nil {
		g.err = fmt.Errorf("%s: %w", g.where, err)
	}
}
