package bpf

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/dhcp"
)

// A joint test is one on several fields in DHCP options, or a late one on one: every occurrence of each with
// every one of the others. It is made once for each frame, behind the walk over
// the options, by walks inside each other: the level says which field is looked for,
// and each step of one loop brings the walk of that level to the next option, or reads
// the next occurrence in it. Calls nest no deeper for it than for one field.
type joint struct {
	levels []level
	bit    int
	where  string // for errors
	// stand goes to yes if the innermost occurrence, with the others, stands the test.
	stand func(c *code, v operand, yes, no label)
}

// level is one field of a joint test.
type level struct {
	ref filter.Ref
	// keep puts an occurrence where the inner levels leave it alone; nil for the innermost.
	keep func(c *code, v operand, none label)
}

const (
	// maxJoint is how many fields a tuple has at most.
	maxJoint   = 4
	outerWords = 9
	// maxJointSteps bounds the steps of a joint test. Sound messages, which have an option 50, 54,
	// 61 and 82 only once, come nowhere near it; a frame that exceeds it is refused.
	maxJointSteps = 1 << 20

	// maxJoined is how many joint tests a policy may have: each is two functions.
	maxJoined = 64

	fnJoints     = "joints"
	fnNextOption = "next_option"

	atOption = 2 // what fnNextOption returns on an option; walkOptions has the others
)

// walkState is what an outer level keeps while inner ones are looked for.
var walkState = [outerWords]int{sWalkField, sWalkAt, sWalkEnd, sCode, sDataAt, sDataLen, sSubNext, sWithin, sStep}

// jointCompare goes to yes if `r op other` holds for occurrences in options.
func (g *gen) jointCompare(c *code, r filter.Ref, t test, yes label) {
	other, op := *t.other, t.op
	if frequent(r) && !frequent(other) {
		r, other, op = other, r, mirrored[op]
	}
	bit, fresh := g.jointBit("joint " + test{kind: toField, op: op, other: &other}.key(r))
	if fresh {
		var left operand
		g.joined = append(g.joined, &joint{bit: bit, where: g.where,
			levels: []level{{r, func(c *code, v operand, _ label) { left = g.keepLeft(c, v, other) }}, {ref: other}},
			stand:  func(c *code, w operand, yes, no label) { g.compareLeft(c, left, w, op, yes, no) },
		})
	}
	c.ifBit(bit, yes)
}

// jointBit is bit for a joint test, of which there may be fewer.
func (g *gen) jointBit(key string) (bit int, fresh bool) {
	bit, fresh = g.bit(key)
	if fresh && len(g.joined) == maxJoined {
		g.fail(fmt.Errorf("more than %d tests on several fields in DHCP options together: %w", maxJoined, ErrTooLarge))
		return bit, false
	}
	return bit, fresh
}

// late reports whether a test asks for what is known only when the walk is over.
func (t test) late() bool {
	is := func(r filter.Ref) bool { f := optionFields[r.Field.Name]; return f != nil && f.leads }
	if t.kind == toField {
		return is(*t.other)
	}
	if t.kind == inSet {
		for i, r := range t.in.Fields {
			if t.parts&(1<<i) == 0 && is(r) {
				return true
			}
		}
	}
	return false
}

// jointOne goes to yes if an occurrence of one field in options stands a late test.
func (g *gen) jointOne(c *code, r filter.Ref, t test, yes label) {
	bit, fresh := g.jointBit("late " + t.key(r))
	if fresh {
		g.joined = append(g.joined, &joint{bit: bit, where: g.where, levels: []level{{ref: r}},
			stand: func(c *code, v operand, yes, no label) { g.stand(c, v, t, yes, no) }})
	}
	c.ifBit(bit, yes)
}

// jointIn goes to yes if occurrences in options of the fields t.parts, with some of the
// others, are in the set.
func (g *gen) jointIn(c *code, t test, yes label) {
	bit, fresh := g.jointBit("joint " + t.key(filter.Ref{Field: t.in.Fields[0].Field}))
	if fresh {
		j := &joint{bit: bit, where: g.where}
		var order []int
		for p := t.parts; p != 0; p &= p - 1 {
			order = append(order, bits.TrailingZeros(p))
		}
		slices.SortStableFunc(order, func(a, b int) int {
			if frequent(t.in.Fields[a]) == frequent(t.in.Fields[b]) {
				return 0
			}
			return map[bool]int{true: 1, false: -1}[frequent(t.in.Fields[a])]
		})
		for _, i := range order {
			j.levels = append(j.levels, level{t.in.Fields[i], func(c *code, v operand, none label) { g.setPart(c, v, t, i, none) }})
		}
		last := j.levels[len(order)-1].keep
		j.stand = func(c *code, v operand, yes, no label) {
			last(c, v, no)
			g.otherParts(c, t, 0, yes, no)
		}
		g.joined = append(g.joined, j)
	}
	c.ifBit(bit, yes)
}

// frequent fields are looked for innermost: a sound message has few of the others.
func frequent(r filter.Ref) bool { return !dhcp.Once(optionFields[r.Field.Name].code) }

// joints emits the call of fnJoints, if the policy has such tests.
func (g *gen) joints(c *code, finish label) {
	any := false
	g.eachTest(func(refs ...filter.Ref) {
		n := 0
		for _, r := range refs {
			if optionFields[r.Field.Name] != nil {
				n++
			}
		}
		any = any || n > 1
	})
	if !any {
		return
	}
	fine := c.label()
	c.call(fnJoints)
	c.testBits(sFlags, flagTooMany, fine)
	g.byDefault(c, firewall.ReasonTooManyLookups, firewall.Drop)
	c.ja(finish)
	c.mark(fine)
}

// callJoints emits fnJoints, when all of them are known.
func (g *gen) callJoints() *code {
	c := newCode(fnJoints)
	none := c.label()
	c.prologue()
	c.testBits(sFlags, flagDHCP, none)
	c.testBits(sFlags, flagCookie, none)
	for _, j := range g.joined {
		name := fmt.Sprintf("joint_%d", j.bit)
		g.needs(name, func() *code { return g.joint(name, j) })
		c.call(name)
	}
	c.mark(none)
	c.retImm(0)
	return c
}

// joint emits the function that makes one joint test.
func (g *gen) joint(name string, j *joint) *code {
	c := newCode(name)
	ended := c.label()
	each := fnEach + name
	g.needs(each, func() *code { return g.eachJoint(each, j) })
	c.prologue()
	c.startWalk()
	for _, off := range []int{sLevel, sJointEnded, sWithin} {
		c.sti(off, 0, asm.Word)
	}
	c.imm(asm.R1, maxJointSteps)
	c.loop(each)
	c.ld(asm.R0, sJointEnded, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, ended)
	c.or(sFlags, flagTooMany)
	c.mark(ended)
	c.retImm(0)
	return c
}

// eachJoint is the callback for one step.
func (g *gen) eachJoint(name string, j *joint) *code {
	c := newCode(name)
	g.where = j.where
	c.callback()
	var at []label
	for k := range j.levels[1:] {
		l := c.label()
		at = append(at, l)
		c.ld(asm.R0, sLevel, asm.Word)
		c.jif(asm.JEq, asm.R0, uint64(k+1), l)
	}
	for k := range j.levels {
		if k > 0 {
			c.mark(at[k-1])
		}
		g.jointStep(c, j, k)
	}
	return c
}

// jointStep is a step of the level k; it returns from the callback.
func (g *gen) jointStep(c *code, j *joint, k int) {
	l := j.levels[k]
	f := optionFields[l.ref.Field.Name]
	read, more, leave, ended := c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R0, sWithin, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, read)
	g.needs(fnNextOption, func() *code {
		return walkOptions(fnNextOption, (*code).prologue, func(c *code) { c.retImm(atOption) })
	})
	c.call(fnNextOption)
	c.jif(asm.JEq, asm.R0, 1, ended)
	c.jif(asm.JEq, asm.R0, 0, more)
	if f.code != 0 {
		c.ld(asm.R0, sCode, asm.Word)
		c.jif(asm.JNE, asm.R0, uint64(f.code), more)
	}
	c.sti(sWithin, 1, asm.Word)
	c.sti(sStep, 0, asm.Word)
	c.sti(sSubNext, 0, asm.Word)
	c.mark(read)
	if !f.bare {
		c.optionData()
	}
	next := more
	if f.steps == 0 {
		c.sti(sWithin, 0, asm.Word)
	} else {
		c.ld(asm.R7, sStep, asm.Word)
		c.jif(asm.JGE, asm.R7, f.steps, leave)
		c.mov(asm.R0, asm.R7)
		c.emit(asm.Add.Imm(asm.R0, 1))
		c.st(sStep, asm.R0, asm.Word)
	}
	f.each(g, c, func(v operand, _ label) {
		v.typ = l.ref.Field.Type
		if v, ok := g.refer(c, l.ref, v, next); ok {
			g.jointValue(c, j, k, v, next)
		}
	}, next, leave)
	c.mark(leave)
	c.sti(sWithin, 0, asm.Word)
	c.mark(more)
	c.retImm(0)
	c.mark(ended)
	if k == 0 {
		c.sti(sJointEnded, 1, asm.Word)
		c.retImm(1)
		return
	}
	c.sti(sLevel, int64(k-1), asm.Word)
	for i, off := range walkState {
		c.ld(asm.R0, sOuter+4*(outerWords*(k-1)+i), asm.Word)
		c.st(off, asm.R0, asm.Word)
	}
	c.retImm(0)
}

// jointValue takes an occurrence of the level k: the innermost is put to the test, for
// another the next level begins.
func (g *gen) jointValue(c *code, j *joint, k int, v operand, next label) {
	if k == len(j.levels)-1 {
		yes := c.label()
		j.stand(c, v, yes, next)
		c.mark(yes)
		c.setBit(j.bit)
		c.sti(sJointEnded, 1, asm.Word)
		c.retImm(1)
		return
	}
	j.levels[k].keep(c, v, next)
	for i, off := range walkState {
		c.ld(asm.R0, off, asm.Word)
		c.st(sOuter+4*(outerWords*k+i), asm.R0, asm.Word)
	}
	c.startWalk()
	c.sti(sWithin, 0, asm.Word)
	c.sti(sLevel, int64(k+1), asm.Word)
	c.ja(next)
}
