package bpf

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

func limitKeyName(kind int) string { return fmt.Sprintf("limit_key_%d", kind) }

// secret is a source of numbers drawn from the layout's seed: a sender cannot choose
// keys that collide, and the next policy finds the same buckets.
func (g *gen) secret(of string) *rand.ChaCha8 {
	seed := sha256.New()
	seed.Write(g.plan.layout.Seed)
	seed.Write([]byte(of))
	return rand.NewChaCha8([32]byte(seed.Sum(nil)))
}

// limitKey emits the function that makes a key of a frame's fields at sHash; it
// returns 0 if the frame lacks one. The first occurrence of a field counts.
func (g *gen) limitKey(kind int) func() *code {
	c := newCode(limitKeyName(kind))
	none, fields := c.label(), ""
	for _, f := range g.limitKinds[kind] {
		fields += f.Name + " "
	}
	random := g.secret(fields)
	c.prologue()
	c.emit(asm.LoadImm(asm.R0, int64(random.Uint64()), asm.DWord))
	c.st(sHash, asm.R0, asm.DWord)
	for _, f := range g.limitKinds[kind] {
		g.firstOf(c, f, none)
		size := 8
		if f.Type == filter.TypeIPv6 {
			size = 16
		}
		c.ld(asm.R0, sHash, asm.DWord)
		for i := 0; i < size; i += 8 {
			c.ld(asm.R1, sKey+i, asm.DWord)
			c.mix(random)
		}
		c.st(sHash, asm.R0, asm.DWord)
	}
	c.ld(asm.R0, sHash, asm.DWord)
	c.emit(asm.Or.Imm(asm.R0, 1)) // no key is 0
	c.st(sHash, asm.R0, asm.DWord)
	c.retImm(1)
	c.mark(none)
	c.retImm(0)
	return func() *code { return c }
}

// mix mixes R1 into the hash R0.
func (c *code) mix(random *rand.ChaCha8) {
	c.emit(asm.LoadImm(asm.R2, int64(random.Uint64()|1), asm.DWord), asm.Xor.Reg(asm.R0, asm.R1), asm.Mul.Reg(asm.R0, asm.R2))
	c.mov(asm.R1, asm.R0)
	c.emit(asm.RSh.Imm(asm.R1, 29), asm.Xor.Reg(asm.R0, asm.R1))
}

// firstOf puts the first occurrence of a field at sKey: a number, an IPv6 address, or
// the hash of a text.
func (g *gen) firstOf(c *code, f *filter.Field, none label) {
	if f.Name == senderCgroup {
		cgroupNumber(c, none)
		return
	}
	got, in := c.label(), optionFields[f.Name]
	if in != nil && in.leads {
		g.captured(c, f, got)
	}
	g.occurrences(c, f, func(v operand, next label) {
		switch {
		case v.kind == inReg:
			c.st(sKey, regValue, asm.DWord)
		case f.Type == filter.TypeIPv6:
			g.keyPart(c, v, f.Type, sKey, next)
		default:
			g.hashText(c, v)
			c.st(sKey, regValue, asm.DWord)
		}
		c.ja(got)
	})
	if in != nil && !in.leads {
		g.captured(c, f, got)
	}
	c.ja(none)
	c.mark(got)
}

// captured goes to got with the first occurrence of a field in options at sKey, if there
// is one.
func (g *gen) captured(c *code, f *filter.Field, got label) {
	slot, ok := g.captures[f.Name]
	if !ok {
		slot = len(g.captures)
		g.captures[f.Name] = slot
	}
	found, no := c.label(), c.label()
	g.atom(c, filter.Ref{Field: f}, test{kind: captureFirst, slot: slot}, found)
	c.ja(no)
	c.mark(found)
	c.ld(asm.R0, sCaptures+8*slot, asm.DWord)
	c.st(sKey, asm.R0, asm.DWord)
	c.ja(got)
	c.mark(no)
}

// fnHashText hashes the R4 bytes, at most maxBytes, at R3 in the scratch area, which have
// zeros behind them up to the next word, into sTextHash.
const fnHashText = "hash_text"

// hashText makes the hash of a text or of bytes regValue.
func (g *gen) hashText(c *code, v operand) {
	if v.n >= 0 || v.most == 0 {
		g.refuse("a key of %s", v.typ)
		return
	}
	g.needs(fnHashText, g.textHash)
	c.imm(asm.R3, uint64(v.mem))
	c.ld(asm.R4, v.lenSlot, asm.Word)
	c.call(fnHashText)
	c.ld(regValue, sTextHash, asm.DWord)
}

func (g *gen) textHash() *code {
	c := newCode(fnHashText)
	within, done := c.label(), c.label()
	random := g.secret(fnHashText)
	c.prologue()
	c.jif(asm.JLE, asm.R3, scratchSize-maxBytes, within)
	c.retImm(0)
	c.mark(within)
	c.mov(asm.R7, regScratch)
	c.emit(asm.Add.Reg(asm.R7, asm.R3))
	c.emit(asm.LoadImm(asm.R0, int64(random.Uint64()), asm.DWord))
	c.mov(asm.R1, asm.R4) // bytes may end in zeros
	c.mix(random)
	for i := 0; i < maxBytes; i += 8 {
		c.jif(asm.JLE, asm.R4, uint64(i), done)
		c.emit(asm.LoadMem(asm.R1, asm.R7, int16(i), asm.DWord))
		c.mix(random)
	}
	c.mark(done)
	c.st(sTextHash, asm.R0, asm.DWord)
	c.retImm(0)
	return c
}
