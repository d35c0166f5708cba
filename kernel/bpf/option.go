package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

// Tests on fields in DHCP options are made while the options are walked, once for
// each frame: an atom is a test that some occurrence has stood or not. It has a bit.
type atom struct {
	ref  filter.Ref
	test test
	bit  int
}

// maxAtoms is the number of bits there are.
const maxAtoms = 8 * (sClearEnd - sAtoms)

// atom goes to yes if an occurrence in an option stands the test.
func (g *gen) atom(c *code, r filter.Ref, t test, yes label) {
	k := t.key(r)
	bit, ok := g.atomBit[k]
	if !ok {
		bit = len(g.atoms)
		if bit == maxAtoms {
			g.refuse("more than %d tests on DHCP options", maxAtoms)
			return
		}
		g.atomBit[k] = bit
		g.atoms = append(g.atoms, atom{r, t, bit})
		g.atomWhere = append(g.atomWhere, g.where)
	}
	no := c.label()
	c.testBits(sFlags, flagDHCP, no)
	c.ld(asm.R0, sAtoms+bit/8, asm.Byte)
	c.emit(asm.And.Imm(asm.R0, 1<<(bit%8)))
	c.jif(asm.JNE, asm.R0, 0, yes)
	c.mark(no)
}

// optionField tells how to read a field in the data of an option.
type optionField struct {
	code uint8 // 0: of any
	// each emits body for each occurrence in the option's sDataLen bytes at sData,
	// which have zeros behind them; it ends by going to done.
	each func(c *code, body func(v operand, next label), done label)
	bare bool // the data is not looked at
}

const (
	optClientID  = 61
	optAgentInfo = 82
)

// inspectOption is what the callback of the walk does with an option.
func (g *gen) inspectOption(c *code) {
	done := c.label()
	for i := 0; i < len(g.atoms); i++ {
		a := g.atoms[i]
		g.where = g.atomWhere[i]
		f := optionFields[a.ref.Field.Name]
		next, yes := c.label(), c.label()
		c.ld(asm.R0, sAtoms+a.bit/8, asm.Byte)
		c.emit(asm.And.Imm(asm.R0, 1<<(a.bit%8)))
		c.jif(asm.JNE, asm.R0, 0, next)
		if f.code != 0 {
			c.ld(asm.R0, sCode, asm.Word)
			c.jif(asm.JNE, asm.R0, uint64(f.code), next)
		}
		if !f.bare {
			c.optionData()
		}
		f.each(c, func(v operand, no label) {
			v.typ = a.ref.Field.Type
			if v, ok := g.refer(c, a.ref, v, no); ok {
				g.stand(c, v, a.test, yes, no)
			}
		}, next)
		c.mark(yes)
		c.ld(asm.R0, sAtoms+a.bit/8, asm.Byte)
		c.emit(asm.Or.Imm(asm.R0, 1<<(a.bit%8)))
		c.st(sAtoms+a.bit/8, asm.R0, asm.Byte)
		c.mark(next)
	}
	c.mark(done)
}

// optionData brings the data of the current option to sData, once, with zeros
// behind it.
func (c *code) optionData() {
	there, fill := c.label(), c.label()
	c.ld(asm.R0, sDataAt, asm.Word)
	c.ld(asm.R1, sLoaded, asm.Word)
	c.jreg(asm.JEq, asm.R0, asm.R1, there)
	c.st(sLoaded, asm.R0, asm.Word)
	for i := 0; i < 264; i += 8 {
		c.sti(sData+i, 0, asm.DWord)
	}
	c.mark(fill)
	c.mov(asm.R2, asm.R0)
	c.ld(asm.R4, sDataLen, asm.Word)
	c.fetch(sData, 255)
	c.mark(there)
}

// single is a field with one occurrence in an option.
func single(read func(c *code, absent label) operand) func(*code, func(operand, label), label) {
	return func(c *code, body func(operand, label), done label) { body(read(c, done), done) }
}

// optNumber is a number that is the whole data.
func optNumber(opt uint8, n int) *optionField {
	return &optionField{code: opt, each: single(func(c *code, absent label) operand {
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JNE, asm.R0, uint64(n), absent)
		c.ldbe(regValue, sData, n)
		return operand{}
	})}
}

func optFirstByte(opt uint8) *optionField {
	return &optionField{code: opt, each: single(func(c *code, absent label) operand {
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JEq, asm.R0, 0, absent)
		c.ld(regValue, sData, asm.Byte)
		return operand{}
	})}
}

// optList is a list of IPv4 addresses.
func optList(opt uint8) *optionField {
	return &optionField{code: opt, each: func(c *code, body func(operand, label), done label) {
		loop, next := c.label(), c.label()
		c.imm(asm.R7, 0)
		c.mark(loop)
		c.jif(asm.JGT, asm.R7, 252, done)
		c.ld(asm.R0, sDataLen, asm.Word)
		c.mov(asm.R1, asm.R7)
		c.emit(asm.Add.Imm(asm.R1, 4))
		c.jreg(asm.JLT, asm.R0, asm.R1, done)
		c.mov(asm.R1, regScratch)
		c.emit(asm.Add.Reg(asm.R1, asm.R7))
		c.ldbeAt(regValue, asm.R1, sData, 4)
		body(operand{}, next)
		c.mark(next)
		c.emit(asm.Add.Imm(asm.R7, 4))
		c.ja(loop)
	}}
}

// upToNUL cuts the text of length *lenSlot at mem, of at most 255 bytes, at its
// first NUL: sText is its length, and zeros are behind it.
func (c *code) upToNUL(mem, lenSlot int) {
	loop, rest, done := c.label(), c.label(), c.label()
	c.ld(asm.R2, lenSlot, asm.Word)
	c.imm(asm.R1, 0)
	c.mark(loop)
	c.jif(asm.JGE, asm.R1, 255, rest)
	c.jreg(asm.JGE, asm.R1, asm.R2, rest)
	c.mov(asm.R4, regScratch)
	c.emit(asm.Add.Reg(asm.R4, asm.R1), asm.LoadMem(asm.R0, asm.R4, int16(mem), asm.Byte))
	c.jif(asm.JEq, asm.R0, 0, rest)
	c.emit(asm.Add.Imm(asm.R1, 1))
	c.ja(loop)
	c.mark(rest)
	c.st(sText, asm.R1, asm.Word)
	zero := c.label()
	c.mark(zero)
	c.jif(asm.JGE, asm.R1, 255, done)
	c.jreg(asm.JGE, asm.R1, asm.R2, done)
	c.mov(asm.R4, regScratch)
	c.emit(asm.Add.Reg(asm.R4, asm.R1), asm.StoreImm(asm.R4, int16(mem), 0, asm.Byte))
	c.emit(asm.Add.Imm(asm.R1, 1))
	c.ja(zero)
	c.mark(done)
}

// tail is the data from off on, as text or as bytes.
func (c *code) tail(off int, text bool) operand {
	c.ld(asm.R1, sDataLen, asm.Word)
	if off > 0 {
		c.emit(asm.Sub.Imm(asm.R1, int32(off)))
	}
	c.st(sText, asm.R1, asm.Word)
	v := operand{kind: inMem, mem: sData + off, most: 256 - off, n: -1, lenSlot: sText, atSlot: sDataAt, atAdd: off}
	if text {
		c.upToNUL(v.mem, sText)
		c.sti(sLoaded, 0, asm.Word) // for it overwrites what is behind
	}
	return v
}

// clientID is a part of a client identifier of a form, filter's clientID: n bytes
// at off, or all from there on where n is negative.
func clientID(off, n int, isText bool, form func(c *code, absent label)) *optionField {
	return &optionField{code: optClientID, each: single(func(c *code, absent label) operand {
		form(c, absent)
		c.ld(asm.R0, sDataLen, asm.Word)
		c.jif(asm.JLT, asm.R0, uint64(off+max(n, 0)), absent)
		if n < 0 {
			return c.tail(off, isText)
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
	"dhcp.option.type":                  {bare: true, each: single(func(c *code, _ label) operand { c.ld(regValue, sCode, asm.Word); return operand{} })},
	"dhcp.option.value":                 {each: single(func(c *code, _ label) operand { return c.tail(0, false) })},
	"dhcp.option.subnet_mask":           optNumber(1, 4),
	"dhcp.option.router":                optList(3),
	"dhcp.option.domain_name_server":    optList(6),
	"dhcp.option.hostname":              {code: 12, each: single(func(c *code, _ label) operand { return c.tail(0, true) })},
	"dhcp.option.requested_ip_address":  optNumber(50, 4),
	"dhcp.option.ip_address_lease_time": optNumber(51, 4),
	"dhcp.option.option_overload":       optFirstByte(52),
	"dhcp.option.dhcp":                  optFirstByte(53),
	"dhcp.option.dhcp_server_id":        optNumber(54, 4),

	"dhcp.hw.type": {code: optClientID, each: single(func(c *code, no label) operand {
		hardwareID(c, no)
		c.ld(regValue, sData, asm.Byte)
		return operand{}
	})},
	"dhcp.hw.mac_addr": {code: optClientID, each: single(func(c *code, no label) operand {
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
