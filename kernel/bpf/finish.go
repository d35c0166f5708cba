package bpf

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// What was decided is on the stack while it is carried out: a copy that
// `duplicate` sends may be judged by this very program before it goes on, in the
// same scratch area.
const (
	kCur     = -84 // the guarded device's index
	kHops    = -88 // how often a rule sent the frame on before
	kVerdict = -24
	kReason  = -28
	kRule    = -32
	kMark    = -36
	kMarked  = -40
	kN       = -44
	kARP     = -48 // where the ARP packet begins in the skb's bytes, 0 if there is no sound one
	kEffects = -80 // 8
)

func (c *code) push(off int16, from int) {
	c.ld(asm.R0, from, asm.Word)
	c.emit(asm.StoreMem(asm.RFP, off, asm.R0, asm.Word))
}

func (c *code) stack(dst asm.Register, off int16) {
	c.emit(asm.LoadMem(dst, asm.RFP, off, asm.Word))
}

// finish carries out what was decided, and returns.
func (g *gen) finish(c *code) {
	counted, drop, forward, unsendable := c.label(), c.label(), c.label(), c.label()
	if g.has(firewall.ActionDuplicate, firewall.ActionSet) {
		// A rule that had one effect too many is counted already.
		c.ld(asm.R0, sReason, asm.Word)
		c.jif(asm.JEq, asm.R0, uint64(firewall.ReasonTooManyEffects), counted)
	}
	g.countAt(c, sSlot)
	c.mark(counted)
	g.events(c)
	if !g.has(firewall.ActionDuplicate, firewall.ActionSet, firewall.ActionMark, firewall.ActionForward) {
		c.ld(asm.R0, sVerdict, asm.Word)
		c.jif(asm.JEq, asm.R0, uint64(firewall.Drop), drop)
		g.letGo(c)
		c.mark(drop)
		c.retImm(actShot)
		return
	}
	effects, plain := g.has(firewall.ActionDuplicate, firewall.ActionSet), c.label()
	for _, v := range [][2]int{{kVerdict, sVerdict}, {kReason, sReason}, {kRule, sRule}, {kMark, sMark}} {
		c.push(int16(v[0]), v[1])
	}
	c.ld(asm.R0, sFlags, asm.Word)
	c.emit(asm.And.Imm(asm.R0, flagMarked), asm.StoreMem(asm.RFP, kMarked, asm.R0, asm.Word))
	if effects {
		c.stack(asm.R0, kReason)
		c.jif(asm.JEq, asm.R0, uint64(firewall.ReasonTooManyEffects), drop)
		g.pushEffects(c)
		g.effects(c, unsendable)
	}
	c.mark(plain)
	c.stack(asm.R0, kVerdict)
	c.jif(asm.JEq, asm.R0, uint64(firewall.Drop), drop)
	if g.has(firewall.ActionMark) {
		unmarked := c.label()
		c.stack(asm.R1, kMarked)
		c.jif(asm.JEq, asm.R1, 0, unmarked)
		c.stack(asm.R1, kMark)
		c.emit(asm.StoreMem(regSKB, skbMark, asm.R1, asm.Word))
		c.mark(unmarked)
	}
	c.jif(asm.JEq, asm.R0, uint64(firewall.Forward), forward)
	g.letGo(c)

	c.mark(forward)
	c.stack(asm.R1, kRule)
	g.rule(c, unsendable)
	c.mov(asm.R8, asm.R0)
	c.emit(asm.LoadMem(asm.R0, asm.R8, ruleWhere, asm.Word))
	c.jif(asm.JEq, asm.R0, 0, unsendable)
	g.sendOn(c, asm.R8)
	c.imm(asm.R2, 0)
	c.helper(asm.FnRedirect)
	c.ret()

	// What the policy asks for cannot be done to this frame. One that is dropped already
	// was told of.
	c.mark(unsendable)
	c.stack(asm.R0, kVerdict)
	c.jif(asm.JEq, asm.R0, uint64(firewall.Drop), drop)
	c.sti(sReason, int64(firewall.ReasonUnsendable), asm.Word)
	c.sti(sVerdict, int64(firewall.Drop), asm.Word)
	c.stack(asm.R0, kRule)
	c.st(sRule, asm.R0, asm.Word)
	g.events(c)
	c.mark(drop)
	c.retImm(actShot)
}

// has reports whether any rule does one of these.
func (g *gen) has(actions ...firewall.Action) bool {
	for _, r := range g.prog.Policy.Rules {
		for _, a := range actions {
			if r.Action == a {
				return true
			}
		}
	}
	return false
}

// rule makes R0 point to what mapRules says of rule R1.
func (g *gen) rule(c *code, none label) {
	c.st(sIndex, asm.R1, asm.Word)
	c.mapPtr(asm.R1, mapRules)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, none)
}

// pushEffects saves what effects need.
func (g *gen) pushEffects(c *code) {
	noARP := c.label()
	c.push(kN, sNEffects)
	for i := range firewall.MaxEffects {
		c.push(int16(kEffects+4*i), sEffects+4*i)
	}
	c.emit(asm.StoreImm(asm.RFP, kARP, 0, asm.Word))
	c.ld(asm.R0, sEther, asm.Word)
	c.jif(asm.JNE, asm.R0, etherARP, noARP)
	c.testBits(sHas, 1<<filter.LayerARP, noARP)
	c.ld(asm.R0, sBad, asm.Word)
	c.emit(asm.And.Imm(asm.R0, 1<<filter.LayerARP))
	c.jif(asm.JNE, asm.R0, 0, noARP)
	c.ld(asm.R0, layerAt(filter.LayerARP), asm.Word)
	c.ld(asm.R1, sShift, asm.Word)
	c.emit(asm.Sub.Reg(asm.R0, asm.R1), asm.StoreMem(asm.RFP, kARP, asm.R0, asm.Word))
	c.mark(noARP)
}

// effects sends copies and rewrites the frame, in the order of the rules. What
// becomes of a copy is not the sender's concern.
func (g *gen) effects(c *code, unsendable label) {
	done := c.label()
	for i := range firewall.MaxEffects {
		set, next := c.label(), c.label()
		c.stack(asm.R1, kN)
		c.jif(asm.JLE, asm.R1, uint64(i), done)
		c.stack(asm.R1, int16(kEffects+4*i))
		g.rule(c, unsendable)
		c.mov(asm.R8, asm.R0)
		c.emit(asm.LoadMem(asm.R0, asm.R8, 0, asm.Word))
		c.jif(asm.JEq, asm.R0, uint64(firewall.ActionSet), set)
		c.emit(asm.LoadMem(asm.R2, asm.R8, ruleWhere, asm.Word))
		c.jif(asm.JEq, asm.R2, 0, next)
		g.sendOn(c, asm.R8)
		c.mov(asm.R2, asm.R1)
		c.mov(asm.R1, regSKB)
		c.imm(asm.R3, 0)
		c.helper(asm.FnCloneRedirect)
		c.ja(next)
		c.mark(set)
		if g.has(firewall.ActionSet) {
			c.emit(asm.LoadMem(asm.R1, asm.R8, ruleWhere, asm.Word))
			g.rewrite(c, unsendable)
		}
		c.mark(next)
	}
	c.mark(done)
}

// mapRewrites has what each `set` writes: 8 bytes, whether ARP is asked for; then
// for each writable field, in the order of writable, whether it is written, 8 bytes,
// and the bytes, 8.
const mapRewrites = "rewrites"

var writable = []struct {
	name   string
	off, n int
	arp    bool
}{
	{"eth.dst", 0, 6, false}, {"eth.src", 6, 6, false},
	{"arp.src.hw_mac", 8, 6, true}, {"arp.src.proto_ipv4", 14, 4, true},
	{"arp.dst.hw_mac", 18, 6, true}, {"arp.dst.proto_ipv4", 24, 4, true},
}

// rewrite carries out the R1-th `set`.
func (g *gen) rewrite(c *code, unsendable label) {
	ready := c.label()
	c.st(sIndex, asm.R1, asm.Word)
	c.mapPtr(asm.R1, mapRewrites)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, unsendable)
	c.mov(asm.R8, asm.R0)
	c.emit(asm.LoadMem(asm.R0, asm.R8, 0, asm.DWord))
	c.jif(asm.JEq, asm.R0, 0, ready)
	c.stack(asm.R0, kARP)
	c.jif(asm.JEq, asm.R0, 0, unsendable)
	c.mark(ready)
	for i, w := range writable {
		next := c.label()
		c.emit(asm.LoadMem(asm.R0, asm.R8, int16(8+16*i), asm.DWord))
		c.jif(asm.JEq, asm.R0, 0, next)
		c.mov(asm.R1, regSKB)
		c.imm(asm.R2, 0)
		if w.arp {
			c.stack(asm.R2, kARP)
		}
		c.emit(asm.Add.Imm(asm.R2, int32(w.off)))
		c.mov(asm.R3, asm.R8)
		c.emit(asm.Add.Imm(asm.R3, int32(16+16*i)))
		c.imm(asm.R4, uint64(w.n))
		c.imm(asm.R5, 0)
		c.helper(asm.FnSkbStoreBytes)
		c.jif(asm.JNE, asm.R0, 0, unsendable)
		c.mark(next)
	}
}

// rewrites fills mapRewrites.
func (g *gen) rewrites() {
	t := contents{keySize: 4, valSize: 8 + 16*len(writable)}
	for _, r := range g.prog.Policy.Rules {
		if r.Action != firewall.ActionSet {
			continue
		}
		val := make([]byte, t.valSize)
		for _, a := range r.Set {
			for i, w := range writable {
				if w.name != a.Field.Name {
					continue
				}
				if w.arp {
					val[0] = 1
				}
				val[8+16*i] = 1
				var b [8]byte
				binary.BigEndian.PutUint64(b[:], a.Value.Num)
				copy(val[16+16*i:], b[8-w.n:])
			}
		}
		t.keys = binary.NativeEndian.AppendUint32(t.keys, uint32(len(t.vals)/t.valSize))
		t.vals = append(t.vals, val...)
	}
	if len(t.vals) > 0 {
		g.contents[mapRewrites] = t
		g.maps[mapRewrites] = &ebpf.MapSpec{Name: mapRewrites, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(t.valSize), MaxEntries: uint32(len(t.keys) / 4)}
	}
}
