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

// ifBit goes to yes if a test on options was stood. The bits of a frame that has no options
// were not cleared.
func (c *code) ifBit(bit int, yes label) {
	no := c.label()
	c.testBits(sFlags, flagCookie, no)
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

// tested is a field and the atoms that are tests of it, which are made together.
type tested struct {
	number int
	field  *filter.Field
	atoms  []atom
}

// inspectOption is what the callback of the walk does with an option: the fields that it
// may hold are read, and put to their tests.
func (g *gen) inspectOption(c *code) {
	var fields []*tested
	of := map[string]*tested{}
	for _, a := range g.atoms {
		f := of[a.ref.Field.Name]
		if f == nil {
			f = &tested{number: len(fields), field: a.ref.Field}
			of[a.ref.Field.Name] = f
			fields = append(fields, f)
		}
		f.atoms = append(f.atoms, a)
	}
	for _, f := range fields {
		name, other := fmt.Sprintf("field_%d", f.number), c.label()
		if code := optionFields[f.field.Name].code; code != 0 {
			c.ld(asm.R0, sCode, asm.Word)
			c.jif(asm.JNE, asm.R0, uint64(code), other)
		}
		g.needs(name, func() *code { return g.readField(name, f) })
		c.call(name)
		c.mark(other)
	}
}

// readField emits the function that puts each occurrence in the option to the tests.
func (g *gen) readField(name string, f *tested) *code {
	c := newCode(name)
	in := optionFields[f.field.Name]
	c.prologue()
	if !in.bare {
		c.optionData()
	}
	if in.steps == 0 {
		done := c.label()
		in.each(g, c, func(v operand, next label) {
			g.putToTests(c, f, v)
			c.ja(next)
		}, done, done)
		c.mark(done)
	} else {
		each := fnEach + name
		g.needs(each, func() *code { return g.eachValue(each, f) })
		c.sti(sSubNext, 0, asm.Word)
		c.imm(asm.R1, in.steps)
		c.loop(each)
	}
	c.retImm(0)
	return c
}

// eachValue is the callback for a field with several occurrences in an option.
func (g *gen) eachValue(name string, f *tested) *code {
	c := newCode(name)
	no, done := c.label(), c.label()
	c.mov(asm.R7, asm.R1)
	c.callback()
	optionFields[f.field.Name].each(g, c, func(v operand, next label) {
		g.putToTests(c, f, v)
		c.ja(next)
	}, no, done)
	c.mark(no)
	c.retImm(0)
	c.mark(done)
	c.retImm(1)
	return c
}

// putToTests calls the functions that put an occurrence to all tests of its field.
func (g *gen) putToTests(c *code, f *tested, v operand) {
	v.typ = f.field.Type
	if v.kind == inReg {
		c.st(sValue, regValue, asm.DWord)
	}
	for i := 0; i < len(f.atoms); {
		t := newCode(fmt.Sprintf("tests_%d_%d", f.number, i))
		t.prologue()
		for ; i < len(f.atoms) && len(t.ins) < functionSize; i++ {
			a := f.atoms[i]
			g.where = a.where
			g.bounded(t, func() { g.putToTest(t, a, v) })
		}
		t.retImm(0)
		g.needs(t.name, func() *code { return t })
		c.call(t.name)
	}
}

func (g *gen) putToTest(c *code, a atom, v operand) {
	yes, next := c.label(), c.label()
	c.ld(asm.R0, sAtoms+a.bit/8, asm.Byte)
	c.emit(asm.And.Imm(asm.R0, 1<<(a.bit%8)))
	c.jif(asm.JNE, asm.R0, 0, next)
	if v.kind == inReg {
		c.ld(regValue, sValue, asm.DWord)
	}
	if v, ok := g.refer(c, a.ref, v, next); ok {
		g.stand(c, v, a.test, yes, next)
	}
	c.mark(yes)
	c.setBit(a.bit)
	c.mark(next)
}
