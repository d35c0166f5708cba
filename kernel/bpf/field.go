package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/frame"
)

// occurrences emits body for each occurrence of a field outside of DHCP options.
// body must leave by a jump; next is where it goes on to the next occurrence.
func (g *gen) occurrences(c *code, f *filter.Field, body func(v operand, next label)) {
	if g.opt.anonymous && (f.Name == "sender.pid" || f.Name == "sender.uid" || f.Name == "sender.comm") {
		g.refuse("the field %s, which this kernel does not tell programs at network devices (6.18 does)", f.Name)
		return
	}
	if read := computed[f.Name]; read != nil {
		for i := 0; ; i++ {
			next := c.label()
			v, ok := read(c, i, next)
			if !ok {
				return
			}
			v.typ = f.Type
			body(v, next)
			c.mark(next)
		}
	}
	switch {
	case optionFields[f.Name] != nil:
	case len(f.At) == 0:
		g.refuse("the field %s", f.Name)
	case f.At[0].Layer == filter.LayerVLAN:
		g.inTags(c, f, body)
	default:
		for _, at := range f.At {
			next := c.label()
			g.at(c, f, at, body, next)
			c.mark(next)
		}
	}
}

// at reads a field at its place.
func (g *gen) at(c *code, f *filter.Field, at filter.Place, body func(operand, label), next label) {
	l := at.Layer
	switch {
	case f.Type == filter.TypeProtocol:
		c.testBits(sHas, 1<<l, next)
		switch l {
		case filter.LayerEth:
			body(operand{typ: f.Type, kind: inMem, mem: sHead, n: frame.HeaderLen, atSlot: layerAt(l)}, next)
		case filter.LayerLLC:
			body(operand{typ: f.Type, kind: inMem, mem: sLLC, n: -1, lenSlot: layerLen(l), atSlot: layerAt(l)}, next)
		default:
			body(operand{typ: f.Type, kind: inFrame, n: -1, lenSlot: layerLen(l), atSlot: layerAt(l)}, next)
		}
		return
	case area(l) < 0:
		g.refuse("the field %s", f.Name)
		return
	}
	c.ld(asm.R0, layerLen(l), asm.Word)
	c.jif(asm.JLT, asm.R0, uint64(at.Off+at.Len), next)
	if f.Type.Numeric() {
		c.placed(area(l)+at.Off, at)
		body(number(f.Type), next)
		return
	}
	body(operand{typ: f.Type, kind: inMem, mem: area(l) + at.Off, n: at.Len, atSlot: layerAt(l), atAdd: at.Off}, next)
}

// placed loads the number of a place whose bytes are at off.
func (c *code) placed(off int, at filter.Place) {
	c.ldbe(regValue, off, at.Len)
	if at.Shift > 0 {
		c.emit(asm.RSh.Imm(regValue, int32(at.Shift)))
	}
	if at.Mask != 1<<(8*at.Len)-1 {
		c.and(regValue, at.Mask)
	}
}

// inTags reads a field in each VLAN tag.
func (g *gen) inTags(c *code, f *filter.Field, body func(operand, label)) {
	last, at := c.label(), f.At[0]
	for i := range frame.MaxTags {
		next := c.label()
		c.ld(asm.R0, sNTags, asm.Word)
		c.jif(asm.JLE, asm.R0, uint64(i), last)
		if f.Type == filter.TypeProtocol {
			body(operand{typ: f.Type, kind: inMem, mem: sTags + 4*i, n: -1, lenSlot: sTagLen + 4*i, atSlot: sTagAt + 4*i}, next)
		} else {
			c.ld(asm.R0, sTagLen+4*i, asm.Word)
			c.jif(asm.JLT, asm.R0, uint64(at.Off+at.Len), next)
			c.placed(sTags+4*i+at.Off, at)
			body(number(f.Type), next)
		}
		c.mark(next)
	}
	c.mark(last)
}

// testBits goes to no if none of the bits of a word of the scratch area are set.
func (c *code) testBits(off int, bits int32, no label) {
	c.ld(asm.R0, off, asm.Word)
	c.emit(asm.And.Imm(asm.R0, bits))
	c.jif(asm.JEq, asm.R0, 0, no)
}
