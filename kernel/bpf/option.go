package bpf

import (
	"fmt"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

// Tests on fields in DHCP options are made while the options are walked, once for
// each frame: an atom is a test that some occurrence has stood or not. It has a bit.
type atom struct {
	ref   filter.Ref
	test  test
	bit   int
	where string // for errors
}

// maxAtoms is the number of bits there are.
const maxAtoms = 8 * atomBytes

// atom goes to yes if an occurrence in an option stands the test.
func (g *gen) atom(c *code, r filter.Ref, t test, yes label) {
	if t.late() {
		g.jointOne(c, r, t, yes)
		return
	}
	bit, fresh := g.bit(t.key(r))
	if fresh {
		g.atoms = append(g.atoms, atom{r, t, bit, g.where})
	}
	c.ifBit(bit, yes)
}

// bit gives the number of a test's bit, and whether it is a new one.
func (g *gen) bit(key string) (bit int, fresh bool) {
	if bit, ok := g.atomBit[key]; ok {
		return bit, false
	}
	bit = len(g.atomBit)
	if bit == maxAtoms {
		g.fail(fmt.Errorf("more than %d tests on DHCP options: %w", maxAtoms, ErrTooLarge))
		return 0, false
	}
	g.atomBit[key] = bit
	return bit, true
}

// ifBit goes to yes if a test on options was stood.
func (c *code) ifBit(bit int, yes label) {
	no := c.label()
	c.testBits(sFlags, flagDHCP, no)
	c.ld(asm.R0, sAtoms+bit/8, asm.Byte)
	c.emit(asm.And.Imm(asm.R0, 1<<(bit%8)))
	c.jif(asm.JNE, asm.R0, 0, yes)
	c.mark(no)
}

func (c *code) setBit(bit int) {
	c.ld(asm.R0, sAtoms+bit/8, asm.Byte)
	c.emit(asm.Or.Imm(asm.R0, 1<<(bit%8)))
	c.st(sAtoms+bit/8, asm.R0, asm.Byte)
}

// optionField tells how to read a field in the data of an option.
type optionField struct {
	code uint8 // 0: of any
	// each emits body for an occurrence in the option's sDataLen bytes at sData,
	// which have zeros behind them, or goes to done.
	each func(c *code, body func(v operand, next label), next, done label)
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

// atomsInFunction is how many atoms are looked at in one function.
const atomsInFunction = 16

// inspectOption is what the callback of the walk does with an option.
func (g *gen) inspectOption(c *code) {
	for first := 0; first < len(g.atoms); first += atomsInFunction {
		name := fmt.Sprintf("atoms_%d", first)
		g.needs(name, func() *code {
			f := newCode(name)
			f.prologue()
			for i := first; i < min(first+atomsInFunction, len(g.atoms)); i++ {
				g.inspectAtom(f, i)
			}
			f.retImm(0)
			return f
		})
		c.call(name)
	}
}

func (g *gen) inspectAtom(c *code, i int) {
	a := g.atoms[i]
	g.where = a.where
	f := optionFields[a.ref.Field.Name]
	next := c.label()
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
	if f.steps == 0 {
		yes := c.label()
		g.inspectValue(c, f, a, yes, next, next)
		c.mark(yes)
		c.setBit(a.bit)
	} else {
		name := fmt.Sprint(fnEach, a.bit)
		g.needs(name, func() *code { return g.eachValue(name, f, a) })
		c.sti(sSubNext, 0, asm.Word)
		c.imm(asm.R1, f.steps)
		c.loop(name)
	}
	c.mark(next)
}

// inspectValue goes to yes if the occurrence stands the test, to no if not, and to
// done if there is none.
func (g *gen) inspectValue(c *code, f *optionField, a atom, yes, no, done label) {
	f.each(c, func(v operand, next label) {
		v.typ = a.ref.Field.Type
		if v, ok := g.refer(c, a.ref, v, next); ok {
			g.stand(c, v, a.test, yes, next)
		}
	}, no, done)
}

// eachValue is the callback for a field with several occurrences in an option.
func (g *gen) eachValue(name string, f *optionField, a atom) *code {
	c := newCode(name)
	yes, no, done := c.label(), c.label(), c.label()
	c.mov(asm.R7, asm.R1)
	c.callback()
	g.inspectValue(c, f, a, yes, no, done)
	c.mark(yes)
	c.setBit(a.bit)
	c.mark(done)
	c.retImm(1)
	c.mark(no)
	c.retImm(0)
	return c
}

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
func single(read func(c *code, absent label) operand) func(*code, func(operand, label), label, label) {
	return func(c *code, body func(operand, label), _, done label) { body(read(c, done), done) }
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
	return &optionField{code: opt, steps: 64, each: func(c *code, body func(operand, label), next, done label) {
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

// upToNUL cuts the text that begins skip bytes behind buf, of at most 255 bytes with
// zeros behind, at its first NUL: sText becomes its length, and all else at buf
// zero. at emits the text's place in the frame into R2.
func (c *code) upToNUL(buf, skip int, at func()) {
	found := c.label()
	c.emit(asm.LoadImm(asm.R4, 0x0101010101010101, asm.DWord), asm.LoadImm(asm.R5, -0x7f7f7f7f7f7f7f80, asm.DWord))
	for i := 0; i < maxBytes; i += 8 {
		c.ld(asm.R0, buf+skip+i, asm.DWord)
		c.emit(asm.HostTo(asm.LE, asm.R0, asm.DWord))
		c.mov(asm.R1, asm.R0)
		c.emit(asm.Sub.Reg(asm.R1, asm.R4), asm.Xor.Imm(asm.R0, -1), asm.And.Reg(asm.R1, asm.R0), asm.And.Reg(asm.R1, asm.R5))
		c.imm(asm.R3, uint64(i))
		c.jif(asm.JNE, asm.R1, 0, found)
	}
	c.mark(found) // the lowest bit of R1 is the NUL's
	for _, n := range []int32{4, 2, 1} {
		low := c.label()
		c.mov(asm.R0, asm.R1)
		c.emit(asm.LSh.Imm(asm.R0, 64-8*n))
		c.jif(asm.JNE, asm.R0, 0, low)
		c.emit(asm.RSh.Imm(asm.R1, 8*n), asm.Add.Imm(asm.R3, n))
		c.mark(low)
	}
	c.st(sText, asm.R3, asm.Word)
	c.clear(buf, 264)
	at()
	c.ld(asm.R4, sText, asm.Word)
	c.fetch(buf+skip, 255)
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
		c.upToNUL(sData, off, func() {
			c.ld(asm.R2, sDataAt, asm.Word)
			c.emit(asm.Add.Imm(asm.R2, int32(off)))
		})
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
	"dhcp.option.type":                  {bare: true, leads: true, each: single(func(c *code, _ label) operand { c.ld(regValue, sCode, asm.Word); return operand{} })},
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
