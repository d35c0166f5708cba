package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
)

// mapAgain tells the program at the device that a rule sends a frame to that it comes
// from here: uint32 each of that device, how often the frame was sent on, and a
// number that stands in skb->cb as well. The kernel runs that program before anything else on this
// CPU (skb_do_redirect, bpf_clone_redirect); what was left by a frame that never came
// there is told by the number. All generations share the map.
const (
	mapAgain   = "again"
	againBytes = 16
	againTo    = 0
	againHops  = 4
	againMark  = 8
)

// maxHops is how often a rule may send a frame on, as in afpacket.
const maxHops = 3

const skbCB = 48

// device puts the index of the device by which the frame leaves, and how often it was
// sent on, on the stack.
func (g *gen) device(c *code) {
	own := c.label()
	c.ctx(asm.R0, g.opt.ifindexOffset())
	c.emit(asm.StoreMem(asm.RFP, kCur, asm.R0, asm.Word), asm.StoreImm(asm.RFP, kHops, 0, asm.Word))
	if !g.sendsOn() {
		return
	}
	c.emit(asm.StoreImm(asm.RFP, -4, 0, asm.Word))
	c.mapPtr(asm.R1, mapAgain)
	c.mov(asm.R2, asm.RFP)
	c.emit(asm.Add.Imm(asm.R2, -4))
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, own)
	c.emit(asm.LoadMem(asm.R1, asm.R0, againTo, asm.Word))
	c.jif(asm.JEq, asm.R1, 0, own)
	c.emit(asm.StoreImm(asm.R0, againTo, 0, asm.Word), asm.LoadMem(asm.R2, asm.R0, againMark, asm.Word))
	c.ctx(asm.R3, skbCB)
	c.jreg(asm.JNE, asm.R2, asm.R3, own)
	if !g.opt.Gate {
		c.stack(asm.R2, kCur)
		c.jreg(asm.JNE, asm.R2, asm.R1, own)
	}
	c.emit(asm.LoadMem(asm.R2, asm.R0, againHops, asm.Word))
	c.emit(asm.StoreMem(asm.RFP, kCur, asm.R1, asm.Word), asm.StoreMem(asm.RFP, kHops, asm.R2, asm.Word))
	c.mark(own)
}

func (g *gen) sendsOn() bool { return g.has(firewall.ActionForward, firewall.ActionDuplicate) }

// tooFar refuses a frame that was sent on too often.
func (g *gen) tooFar(c *code, finish label) {
	if !g.sendsOn() {
		return
	}
	near := c.label()
	c.stack(asm.R0, kHops)
	c.jif(asm.JLE, asm.R0, maxHops, near)
	g.byDefault(c, firewall.ReasonRecursion, firewall.Drop)
	c.ja(finish)
	c.mark(near)
}

// sendOn says in mapAgain that the frame comes to the device of the rule that entry
// points to, and makes R1 the device to send it to: the inspection device of that
// one if it has a gate, for netfilter does not judge what is redirected at the tc layer.
func (g *gen) sendOn(c *code, entry asm.Register) {
	straight, none := c.label(), c.label()
	c.emit(asm.StoreImm(asm.RFP, -4, 0, asm.Word))
	c.mapPtr(asm.R1, mapAgain)
	c.mov(asm.R2, asm.RFP)
	c.emit(asm.Add.Imm(asm.R2, -4))
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, none)
	c.mov(asm.R7, asm.R0)
	c.helper(asm.FnGetPrandomU32)
	c.emit(asm.StoreMem(asm.R7, againMark, asm.R0, asm.Word), asm.StoreMem(regSKB, skbCB, asm.R0, asm.Word))
	c.emit(asm.LoadMem(asm.R0, entry, ruleWhere, asm.Word), asm.StoreMem(asm.R7, againTo, asm.R0, asm.Word))
	c.stack(asm.R0, kHops)
	c.emit(asm.Add.Imm(asm.R0, 1), asm.StoreMem(asm.R7, againHops, asm.R0, asm.Word))
	c.mark(none)
	c.emit(asm.LoadMem(asm.R1, entry, ruleVia, asm.Word))
	c.jif(asm.JNE, asm.R1, 0, straight)
	c.emit(asm.LoadMem(asm.R1, entry, ruleWhere, asm.Word))
	c.mark(straight)
}

// skip is letGo for a program that knows no more than skb.
func (g *gen) skip(c *code) {
	if g.opt.Gate {
		c.ctx(asm.R0, skbIngressIfindex)
		c.emit(asm.StoreMem(asm.RFP, kCur, asm.R0, asm.Word))
	}
	g.letGo(c)
}

// letGo ends the program with what lets the frame out. On the gate's inspection
// device that is a way back to the device it came from, which netfilter does not
// judge again (skb->nf_skip_egress). A frame that came from none was sent to the
// inspection device itself, and is dropped.
func (g *gen) letGo(c *code) {
	if !g.opt.Gate {
		c.retImm(actUnspec)
		return
	}
	nowhere := c.label()
	c.stack(asm.R1, kCur)
	c.jif(asm.JEq, asm.R1, 0, nowhere)
	c.imm(asm.R2, 0)
	c.helper(asm.FnRedirect)
	c.emit(asm.Return())
	c.mark(nowhere)
	c.retImm(actShot)
}
