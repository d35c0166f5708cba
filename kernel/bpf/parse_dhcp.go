package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/dhcp"
)

// fnOption is the callback of the walk over DHCP options. Its context is two
// pointers on the stack: the frame, and the scratch area.
const fnOption = "dhcp_option"

// dhcpWalk walks the options of the message of R8 bytes, at least 236, at R7:
// dhcp.Message.scan. sNote is the cause found, 0 if none was.
func (c *code) dhcpWalk() {
	done := c.label()
	for _, off := range []int{sWalkField, sOverload, sType, sNote, sWalkFlags, sCut, sLoaded, sOnce, sOnce + 8, sOnce + 16, sOnce + 24} {
		c.sti(off, 0, asm.Word)
	}
	c.jif(asm.JLT, asm.R8, dhcpCookie, done)
	c.ldbe(asm.R0, sDHCP+dhcpFixed, 4)
	c.jif(asm.JNE, asm.R0, dhcp.Cookie, done)
	c.or(sFlags, flagCookie)
	c.mov(asm.R0, asm.R7)
	c.emit(asm.Add.Reg(asm.R0, asm.R8))
	c.st(sWalkEnd, asm.R0, asm.Word)
	c.mov(asm.R0, asm.R7)
	c.emit(asm.Add.Imm(asm.R0, dhcpCookie))
	c.st(sWalkAt, asm.R0, asm.Word)

	// Each step takes a byte at least, or goes on to the next field; file and sname
	// are shorter than the fixed part.
	c.mov(asm.R1, asm.R8)
	c.min(asm.R1, 1<<16)
	c.loop(fnOption)

	c.ld(asm.R0, sNote, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, done)
	ended := c.label()
	c.ld(asm.R0, sWalkFlags, asm.Word)
	c.mov(asm.R1, asm.R0)
	c.emit(asm.And.Imm(asm.R1, walkPastEnd))
	c.jif(asm.JEq, asm.R1, 0, ended)
	c.sti(sNote, int64(filter.DHCPCause(dhcp.CausePastEnd)), asm.Word)
	c.ja(done)
	c.mark(ended)
	c.emit(asm.And.Imm(asm.R0, walkTypeSeen))
	c.jif(asm.JNE, asm.R0, 0, done)
	c.sti(sNote, int64(filter.DHCPCause(dhcp.CauseNoMessageType)), asm.Word)
	c.mark(done)
}

// startWalk goes back to the first option.
func (c *code) startWalk() {
	c.sti(sWalkField, 0, asm.Word)
	c.ld(asm.R0, layerAt(filter.LayerDHCP), asm.Word)
	c.ld(asm.R1, layerLen(filter.LayerDHCP), asm.Word)
	c.mov(asm.R2, asm.R0)
	c.emit(asm.Add.Imm(asm.R2, dhcpCookie), asm.Add.Reg(asm.R0, asm.R1))
	c.st(sWalkAt, asm.R2, asm.Word)
	c.st(sWalkEnd, asm.R0, asm.Word)
}

// loop calls the callback R1 times at most.
func (c *code) loop(callback string) {
	c.emit(asm.StoreMem(asm.RFP, -16, regSKB, asm.DWord), asm.StoreMem(asm.RFP, -8, regScratch, asm.DWord))
	c.funcPtr(asm.R2, callback)
	c.mov(asm.R3, asm.RFP)
	c.emit(asm.Add.Imm(asm.R3, -16), asm.Mov.Imm(asm.R4, 0))
	c.helper(asm.FnLoop)
}

// callback takes over the context that loop made.
func (c *code) callback() {
	c.emit(asm.LoadMem(regSKB, asm.R2, 0, asm.DWord), asm.LoadMem(regScratch, asm.R2, 8, asm.DWord))
}

// walkOptions makes a function that walks one option, Pad or End, and returns 1 where
// there is none. inspect emits what is to be known of the option sCode with sDataLen
// bytes at sDataAt. The message's own checks come before it in fnOption.
func walkOptions(name string, begin, inspect func(*code)) *code {
	c := newCode(name)
	begin(c)
	const at, end = asm.R7, asm.R8
	pad, last, nextField, two, fits := c.label(), c.label(), c.label(), c.label(), c.label()
	pastEnd := c.label()
	c.ld(at, sWalkAt, asm.Word)
	c.ld(end, sWalkEnd, asm.Word)
	c.jreg(asm.JGE, at, end, pastEnd)
	c.emit(asm.Sub.Reg(end, at)) // what is left
	c.mov(asm.R2, at)
	c.imm(asm.R4, 2)
	c.jif(asm.JGE, end, 2, two)
	c.imm(asm.R4, 1)
	c.mark(two)
	c.fetch(sTmp, 2)
	c.ld(asm.R1, sTmp, asm.Byte)
	c.jif(asm.JEq, asm.R1, dhcp.OptPad, pad)
	c.jif(asm.JEq, asm.R1, dhcp.OptEnd, last)
	c.jif(asm.JLT, end, 2, pastEnd)
	c.ld(asm.R2, sTmp+1, asm.Byte)
	c.mov(asm.R3, asm.R2)
	c.emit(asm.Add.Imm(asm.R3, 2))
	c.jreg(asm.JLE, asm.R3, end, fits)
	c.st(sCut, asm.R1, asm.Word)
	c.mark(pastEnd)
	c.or(sWalkFlags, walkPastEnd)
	c.ja(nextField)
	c.mark(pad)
	// A message may be full of them: many at once, where there are many.
	const many = 32
	one := c.label()
	c.jif(asm.JLT, end, many, one)
	c.mov(asm.R2, at)
	c.fetchAll(sTmp, many)
	for i := 0; i < many; i += 8 {
		c.ld(asm.R0, sTmp+i, asm.DWord)
		c.jif(asm.JNE, asm.R0, 0, one)
	}
	c.emit(asm.Add.Imm(at, many-1))
	c.mark(one)
	c.emit(asm.Add.Imm(at, 1))
	c.st(sWalkAt, at, asm.Word)
	c.or(sWalkFlags, walkBlank)
	c.retImm(0)
	c.mark(last)
	c.or(sWalkFlags, walkBlank)
	c.ja(nextField)

	c.mark(fits)
	c.st(sCode, asm.R1, asm.Word)
	c.st(sDataLen, asm.R2, asm.Word)
	c.emit(asm.Add.Reg(asm.R3, at))
	c.st(sWalkAt, asm.R3, asm.Word)
	c.emit(asm.Add.Imm(at, 2))
	c.st(sDataAt, at, asm.Word)
	if name == fnOption {
		c.noteOption()
	}
	inspect(c)
	c.retImm(0)

	c.mark(nextField)
	c.nextField()
	return c
}

// noteOption is dhcp.Message.note.
func (c *code) noteOption() {
	overload, typ, noted, badOver, keepOver, typed, differs, wrongLen, once := c.label(), c.label(), c.label(), c.label(), c.label(), c.label(), c.label(), c.label(), c.label()
	c.jif(asm.JEq, asm.R1, dhcp.OptOverload, overload)
	c.jif(asm.JEq, asm.R1, dhcp.OptMessageType, typ)
	for i, opt := range []uint64{dhcp.OptRequestedIP, dhcp.OptServerID, dhcp.OptClientID, dhcp.OptRelayAgentInfo} {
		c.imm(asm.R7, uint64(8*i))
		c.jif(asm.JEq, asm.R1, opt, once)
	}
	c.ja(noted)
	c.mark(once)
	c.noteOnce(noted)

	c.mark(overload)
	c.sti(sTmp, 0, asm.Byte)
	c.optionByte()
	c.ld(asm.R3, sOverload, asm.Word)
	c.ld(asm.R0, sWalkField, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, badOver)
	c.jif(asm.JNE, asm.R2, 1, badOver)
	c.jif(asm.JEq, asm.R1, 0, badOver)
	c.jif(asm.JGT, asm.R1, 3, badOver)
	c.jif(asm.JEq, asm.R3, 0, keepOver)
	c.jreg(asm.JEq, asm.R3, asm.R1, keepOver)
	c.mark(badOver)
	c.note(dhcp.CauseOverload)
	c.mark(keepOver)
	c.ld(asm.R0, sWalkField, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, noted)
	c.jif(asm.JNE, asm.R3, 0, noted)
	c.jif(asm.JEq, asm.R2, 0, noted)
	c.jif(asm.JGT, asm.R1, 3, noted)
	c.st(sOverload, asm.R1, asm.Word)
	c.ja(noted)

	c.mark(typ)
	c.or(sWalkFlags, walkTypeSeen)
	c.optionByte()
	c.jif(asm.JNE, asm.R2, 1, wrongLen)
	c.emit(asm.Or.Imm(asm.R1, 0x100))
	c.ld(asm.R3, sType, asm.Word)
	c.jif(asm.JEq, asm.R3, 0, typed)
	c.jreg(asm.JNE, asm.R3, asm.R1, differs)
	c.mark(typed)
	c.st(sType, asm.R1, asm.Word)
	c.ja(noted)
	c.mark(wrongLen)
	c.note(dhcp.CauseTypeLength)
	c.ja(noted)
	c.mark(differs)
	c.note(dhcp.CauseTwoTypes)
	c.mark(noted)
}

// noteOnce is for the options of dhcp.Once: R7 is 8 times the option's number among
// them.
func (c *code) noteOnce(noted label) {
	const slot = asm.R7
	first := c.label()
	c.emit(asm.Add.Reg(slot, regScratch))
	c.emit(asm.LoadMem(asm.R2, slot, sOnce, asm.Word))
	c.jif(asm.JEq, asm.R2, 0, first)
	c.note(dhcp.CauseRepeated)
	c.mark(first)
	c.emit(asm.StoreImm(slot, sOnce, 1, asm.Word))
	c.ja(noted)
}

// note keeps the first cause; it clobbers R0.
func (c *code) note(cause dhcp.Cause) {
	had := c.label()
	c.ld(asm.R0, sNote, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, had)
	c.sti(sNote, int64(filter.DHCPCause(cause)), asm.Word)
	c.mark(had)
}

// optionByte loads the first byte of the option's data into R1, 0 if there is
// none, and its length into R2.
func (c *code) optionByte() {
	none := c.label()
	c.sti(sTmp, 0, asm.Byte)
	c.ld(asm.R2, sDataLen, asm.Word)
	c.jif(asm.JEq, asm.R2, 0, none)
	c.ld(asm.R2, sDataAt, asm.Word)
	c.fetchAll(sTmp, 1)
	c.mark(none)
	c.ld(asm.R1, sTmp, asm.Byte)
	c.ld(asm.R2, sDataLen, asm.Word)
}

// nextField goes on to file and to sname where option 52 says so.
func (c *code) nextField() {
	file, sname, stop := c.label(), c.label(), c.label()
	c.ld(asm.R1, sOverload, asm.Word)
	c.ld(asm.R2, layerAt(filter.LayerDHCP), asm.Word)
	c.ld(asm.R0, sWalkField, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, file)
	c.jif(asm.JEq, asm.R0, 1, sname)
	c.mark(stop)
	c.sti(sWalkField, 2, asm.Word)
	c.retImm(1)
	for i, f := range []struct {
		at         label
		first, end int32
	}{{file, 108, 236}, {sname, 44, 108}} {
		c.mark(f.at)
		c.mov(asm.R3, asm.R1)
		c.emit(asm.And.Imm(asm.R3, int32(i+1)))
		next := stop
		if i == 0 {
			next = sname
		}
		c.jif(asm.JEq, asm.R3, 0, next)
		c.sti(sWalkField, int64(i+1), asm.Word)
		c.mov(asm.R3, asm.R2)
		c.emit(asm.Add.Imm(asm.R3, f.first))
		c.st(sWalkAt, asm.R3, asm.Word)
		c.emit(asm.Add.Imm(asm.R2, f.end))
		c.st(sWalkEnd, asm.R2, asm.Word)
		c.retImm(0)
	}
}
