package bpf

import "github.com/cilium/ebpf/asm"

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
	c.ctx(asm.R1, skbIngressIfindex)
	c.jif(asm.JEq, asm.R1, 0, nowhere)
	c.imm(asm.R2, 0)
	c.helper(asm.FnRedirect)
	c.emit(asm.Return())
	c.mark(nowhere)
	c.retImm(actShot)
}
