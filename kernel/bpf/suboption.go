package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
)

// maxSuboptions is how many sub-options an option's 255 bytes can hold.
const maxSuboptions = 127

const agentPrefix = "dhcp.option.agent_information_option."

func init() {
	for name, f := range map[string]*optionField{
		"suboption":          {code: optAgentInfo, steps: maxSuboptions, each: suboptionCodes},
		"agent_circuit_id":   suboption(1, filter.TypeBytes),
		"agent_remote_id":    suboption(2, filter.TypeBytes),
		"link_selection":     suboption(5, filter.TypeIPv4),
		"subscriber_id":      suboption(6, filter.TypeString),
		"server_id_override": suboption(11, filter.TypeIPv4),
		"relay_agent_id":     suboption(12, filter.TypeBytes),
	} {
		optionFields[agentPrefix+name] = f
	}
}

// suboptions reads the sub-option at sSubNext in sData as dhcp.Suboptions does. It
// emits one, with its code in R2, its length in R3 and its data at R1+sData+2, R7
// being its place; cut for one whose data is not all there, with its code in R2.
func (c *code) suboptions(one, cut func(), done label) {
	const at = asm.R7
	beyond := c.label()
	c.ld(at, sSubNext, asm.Word)
	c.jif(asm.JGT, at, 253, done)
	c.ld(asm.R0, sDataLen, asm.Word)
	c.mov(asm.R4, at)
	c.emit(asm.Add.Imm(asm.R4, 2))
	c.jreg(asm.JGT, asm.R4, asm.R0, done)
	c.mov(asm.R1, regScratch)
	c.emit(asm.Add.Reg(asm.R1, at))
	c.emit(asm.LoadMem(asm.R2, asm.R1, sData, asm.Byte), asm.LoadMem(asm.R3, asm.R1, sData+1, asm.Byte))
	c.emit(asm.Add.Reg(asm.R4, asm.R3))
	c.jreg(asm.JGT, asm.R4, asm.R0, beyond)
	c.st(sSubNext, asm.R4, asm.Word)
	one()
	c.mark(beyond)
	c.sti(sSubNext, 255, asm.Word) // there is none behind it
	cut()
}

func suboptionCodes(_ *gen, c *code, body func(operand, label), next, done label) {
	read := func() {
		c.mov(regValue, asm.R2)
		body(operand{}, next)
	}
	c.suboptions(read, read, done)
}

// suboption is the data of the sub-options of a code.
func suboption(number uint64, t filter.Type) *optionField {
	return &optionField{code: optAgentInfo, steps: maxSuboptions, each: func(g *gen, c *code, body func(operand, label), next, done label) {
		c.suboptions(func() {
			c.jif(asm.JNE, asm.R2, number, next)
			if t == filter.TypeIPv4 {
				c.jif(asm.JNE, asm.R3, 4, next)
				c.ldbeAt(regValue, asm.R1, sData+2, 4)
				body(operand{}, next)
				return
			}
			c.st(sSubLen, asm.R3, asm.Word)
			c.ld(asm.R2, sDataAt, asm.Word)
			c.emit(asm.Add.Reg(asm.R2, asm.R7), asm.Add.Imm(asm.R2, 2))
			c.st(sSubAt, asm.R2, asm.Word)
			c.clear(sSub, 264)
			c.mov(asm.R4, asm.R3)
			c.fetch(sSub, 255)
			v := operand{kind: inMem, mem: sSub, most: 256, n: -1, lenSlot: sSubLen, atSlot: sSubAt}
			if t == filter.TypeString {
				g.cutText(c, v)
				v.lenSlot = sTextLen
			}
			body(v, next)
		}, func() { c.ja(done) }, done)
	}}
}
