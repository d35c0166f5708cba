package bpf

import (
	"github.com/cilium/ebpf/asm"
)

// optionField tells how to read a field in the data of an option.
type optionField struct {
	code uint8 // 0: of any
	// each emits body for an occurrence in the option's sDataLen bytes at sData,
	// which have zeros behind them, or goes to done.
	each func(g *gen, c *code, body func(v operand, next label), next, done label)
	// steps is not 0 for a field with several occurrences: each is emitted in the
	// callback of a loop of so many steps, and reads the next occurrence, if any.
	// R7 is the step's number, and sSubNext is 0 at the first.
	steps uint64
	bare  bool // the data is not looked at
	leads bool // those elsewhere come behind those in options, and are known when the walk is over
}

// fnEach begins the names of those callbacks.
const fnEach = "each_"

const (
	optClientID  = 61
	optAgentInfo = 82
)

// optionData brings the data of the current option to sData, once, with zeros
// behind it.
func (c *code) optionData() {
	there := c.label()
	c.ld(asm.R0, sDataAt, asm.Word)
	c.ld(asm.R1, sLoaded, asm.Word)
	c.jreg(asm.JEq, asm.R0, asm.R1, there)
	c.st(sLoaded, asm.R0, asm.Word)
	c.clear(sData, 264)
	c.mov(asm.R2, asm.R0)
	c.ld(asm.R4, sDataLen, asm.Word)
	c.fetch(sData, 255)
	c.mark(there)
}

// single is a field with one occurrence in an option.
func single(read func(g *gen, c *code, absent label) operand) func(*gen, *code, func(operand, label), label, label) {
	return func(g *gen, c *code, body func(operand, label), _, done label) { body(read(g, c, done), done) }
}

// optNumber is a number that is the whole data.
func optNumber(opt uint8, n int) *optionField {
	return &optionField{code: opt, each: single(func(g *gen, c *code, absent label) operand {
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JNE, asm.R0, uint64(n), absent)
		c.ldbe(regValue, sData, n)
		return operand{}
	})}
}

func optFirstByte(opt uint8) *optionField {
	return &optionField{code: opt, each: single(func(g *gen, c *code, absent label) operand {
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JEq, asm.R0, 0, absent)
		c.ld(regValue, sData, asm.Byte)
		return operand{}
	})}
}

// optList is a list of IPv4 addresses.
func optList(opt uint8) *optionField {
	return &optionField{code: opt, steps: 64, each: func(g *gen, c *code, body func(operand, label), next, done label) {
		c.emit(asm.LSh.Imm(asm.R7, 2))
		c.jif(asm.JGT, asm.R7, 252, done)
		c.ld(asm.R0, sDataLen, asm.Word)
		c.mov(asm.R1, asm.R7)
		c.emit(asm.Add.Imm(asm.R1, 4))
		c.jreg(asm.JLT, asm.R0, asm.R1, done)
		c.mov(asm.R1, regScratch)
		c.emit(asm.Add.Reg(asm.R1, asm.R7))
		c.ldbeAt(regValue, asm.R1, sData, 4)
		body(operand{}, next)
	}}
}

// fnCutText cuts the text of R5 bytes, at most 255, at R3 in the scratch area and at R4 in the
// frame, which has zeros behind it, at its first NUL: sTextLen becomes its length, and what is
// behind it zero.
const fnCutText = "cut_text"

func (g *gen) cutText(c *code, v operand) {
	g.needs(fnCutText, cutText)
	c.imm(asm.R3, uint64(v.mem))
	c.ld(asm.R4, v.atSlot, asm.Word)
	if v.atAdd > 0 {
		c.emit(asm.Add.Imm(asm.R4, int32(v.atAdd)))
	}
	c.ld(asm.R5, v.lenSlot, asm.Word)
	c.call(fnCutText)
}

func cutText() *code {
	c := newCode(fnCutText)
	const at, length = -8, -16
	within, found, whole := c.label(), c.label(), c.label()
	c.prologue()
	c.jif(asm.JLE, asm.R3, scratchSize-maxBytes-8, within)
	c.mark(whole)
	c.retImm(0)
	c.mark(within)
	c.mov(asm.R7, regScratch)
	c.emit(asm.Add.Reg(asm.R7, asm.R3), asm.StoreMem(asm.RFP, at, asm.R4, asm.DWord), asm.StoreMem(asm.RFP, length, asm.R5, asm.DWord))
	c.emit(asm.LoadImm(asm.R4, 0x0101010101010101, asm.DWord), asm.LoadImm(asm.R5, -0x7f7f7f7f7f7f7f80, asm.DWord))
	for i := 0; i < maxBytes; i += 8 {
		c.emit(asm.LoadMem(asm.R0, asm.R7, int16(i), asm.DWord), asm.HostTo(asm.LE, asm.R0, asm.DWord))
		c.mov(asm.R1, asm.R0)
		c.emit(asm.Sub.Reg(asm.R1, asm.R4), asm.Xor.Imm(asm.R0, -1), asm.And.Reg(asm.R1, asm.R0), asm.And.Reg(asm.R1, asm.R5))
		c.imm(asm.R8, uint64(i))
		c.jif(asm.JNE, asm.R1, 0, found)
	}
	c.mark(found) // the lowest bit of R1 is the NUL's
	for _, n := range []int32{4, 2, 1} {
		low := c.label()
		c.mov(asm.R0, asm.R1)
		c.emit(asm.LSh.Imm(asm.R0, 64-8*n))
		c.jif(asm.JNE, asm.R0, 0, low)
		c.emit(asm.RSh.Imm(asm.R1, 8*n), asm.Add.Imm(asm.R8, n))
		c.mark(low)
	}
	c.st(sTextLen, asm.R8, asm.Word)
	c.emit(asm.LoadMem(asm.R0, asm.RFP, length, asm.DWord))
	c.jreg(asm.JGE, asm.R8, asm.R0, whole)
	c.sti(sLoaded, 0, asm.Word) // for what is behind is overwritten
	for i := 0; i < maxBytes; i += 8 {
		c.emit(asm.Instruction{OpCode: asm.StoreImmOp(asm.DWord), Dst: asm.R7, Offset: int16(i)})
	}
	c.jif(asm.JEq, asm.R8, 0, whole)
	c.ld(asm.R0, sShift, asm.Word)
	c.mov(asm.R1, regSKB)
	c.emit(asm.LoadMem(asm.R2, asm.RFP, at, asm.DWord), asm.Sub.Reg(asm.R2, asm.R0))
	c.mov(asm.R3, asm.R7)
	c.mov(asm.R4, asm.R8)
	c.min(asm.R4, maxBytes)
	c.helper(asm.FnSkbLoadBytes)
	c.retImm(0)
	return c
}

// tail is the data from off on, as text or as bytes.
func (g *gen) tail(c *code, off int, text bool) operand {
	c.ld(asm.R1, sDataLen, asm.Word)
	if off > 0 {
		c.emit(asm.Sub.Imm(asm.R1, int32(off)))
	}
	c.st(sTextLen, asm.R1, asm.Word)
	v := operand{kind: inMem, mem: sData + off, most: 256 - off, n: -1, lenSlot: sTextLen, atSlot: sDataAt, atAdd: off}
	if text {
		g.cutText(c, v)
	}
	return v
}

// clientID is a part of a client identifier of a form, filter's clientID: n bytes
// at off, or all from there on where n is negative.
func clientID(off, n int, isText bool, form func(c *code, absent label)) *optionField {
	return &optionField{code: optClientID, each: single(func(g *gen, c *code, absent label) operand {
		form(c, absent)
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JLT, asm.R0, uint64(off+max(n, 0)), absent)
		if n < 0 {
			return g.tail(c, off, isText)
		}
		c.ldbe(regValue, sData+off, n)
		return operand{}
	})}
}

// textID, hardwareID and duid go to no if the identifier is not of their form.
func textID(c *code, no label) {
	c.ld(asm.R0, sDataLen, asm.Word)
	c.jif(asm.JLE, asm.R0, 1, no)
	c.jif(asm.JEq, asm.R0, 17, no)
	c.ld(asm.R0, sData, asm.Byte)
	c.jif(asm.JNE, asm.R0, 0, no)
}

func hardwareID(c *code, no label) {
	c.ld(asm.R0, sDataLen, asm.Word)
	c.jif(asm.JNE, asm.R0, 7, no)
	c.ld(asm.R0, sData, asm.Byte)
	c.jif(asm.JEq, asm.R0, 0, no)
	c.jif(asm.JGE, asm.R0, 48, no)
}

func duid(typ uint64) func(c *code, no label) {
	return func(c *code, no label) {
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JLT, asm.R0, 7, no)
		c.ld(asm.R0, sData, asm.Byte)
		c.jif(asm.JNE, asm.R0, 255, no)
		if typ != 0 {
			c.ldbe(asm.R0, sData+5, 2)
			c.jif(asm.JNE, asm.R0, typ, no)
		}
	}
}

// optionFields are the fields that occur in options, with the computed ones of the
// same name where they also occur elsewhere.
var optionFields = map[string]*optionField{
	"dhcp.option.type":                  {bare: true, leads: true, each: single(func(g *gen, c *code, _ label) operand { c.ld(regValue, sCode, asm.Word); return operand{} })},
	"dhcp.option.value":                 {each: single(func(g *gen, c *code, _ label) operand { return g.tail(c, 0, false) })},
	"dhcp.option.subnet_mask":           optNumber(1, 4),
	"dhcp.option.router":                optList(3),
	"dhcp.option.domain_name_server":    optList(6),
	"dhcp.option.hostname":              {code: 12, each: single(func(g *gen, c *code, _ label) operand { return g.tail(c, 0, true) })},
	"dhcp.option.requested_ip_address":  optNumber(50, 4),
	"dhcp.option.ip_address_lease_time": optNumber(51, 4),
	"dhcp.option.option_overload":       optFirstByte(52),
	"dhcp.option.dhcp":                  optFirstByte(53),
	"dhcp.option.dhcp_server_id":        optNumber(54, 4),

	"dhcp.hw.type": {code: optClientID, each: single(func(g *gen, c *code, no label) operand {
		hardwareID(c, no)
		c.ld(regValue, sData, asm.Byte)
		return operand{}
	})},
	"dhcp.hw.mac_addr": {code: optClientID, each: single(func(g *gen, c *code, no label) operand {
		ethernet := c.label()
		hardwareID(c, no)
		c.jif(asm.JEq, asm.R0, 1, ethernet)
		c.jif(asm.JNE, asm.R0, 6, no)
		c.mark(ethernet)
		c.ldbe(regValue, sData+1, 6)
		return operand{}
	})},
	"dhcp.client_id.type":             clientID(0, 1, false, textID),
	"dhcp.client_id.undef":            clientID(1, -1, true, textID),
	"dhcp.client_id.duid_type":        clientID(5, 2, false, duid(0)),
	"dhcp.client_id.duid_llt_hw_type": clientID(7, 2, false, duid(1)),
	"dhcp.client_id.time":             clientID(9, 4, false, duid(1)),
	"dhcp.client_id.enterprise_num":   clientID(7, 4, false, duid(2)),
	"dhcp.client_id":                  clientID(11, -1, false, duid(2)),
	"dhcp.client_id.duid_ll_hw_type":  clientID(7, 2, false, duid(3)),
}
