package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/arp"
)

// present notes that a layer is there, R8 bytes from R7 on.
func (c *code) present(l filter.Layer) {
	c.or(sHas, 1<<l)
	c.st(layerAt(l), asm.R7, asm.Word)
	c.st(layerLen(l), asm.R8, asm.Word)
}

// inspected is Packet.inspected for a layer that is noted already.
func (c *code) inspected(l filter.Layer) {
	single := c.label()
	c.ctx(asm.R0, skbGSOSize)
	c.jif(asm.JEq, asm.R0, 0, single)
	c.malformed(l, filter.CauseGSO)
	c.mark(single)
}

// arp decodes as arp.Packet.Decode does, and goes to done. The packet's 28 bytes
// are at sNet if their sizes are Ethernet's and IPv4's; else the addresses are
// brought to where they would stand if they were. flags says whether arp.isgratuitous
// and its like are asked for.
func (c *code) arp(flags bool, done label) {
	header, odd, sized, clipped, sound, seen := c.label(), c.label(), c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R7, sNetAt, asm.Word)
	c.ld(asm.R8, sNetLen, asm.Word)
	c.st(layerAt(filter.LayerARP), asm.R7, asm.Word)
	c.jif(asm.JGE, asm.R8, 8, header)
	c.malformed(filter.LayerARP, filter.ARPCause(arp.CauseShort))
	c.ja(sized)

	c.mark(header)
	// What nearly every packet says, in one comparison.
	unusual := c.label()
	c.jif(asm.JLT, asm.R8, 28, unusual)
	c.ldbe(asm.R0, sNet, 6)
	c.emit(asm.LoadImm(asm.R1, 0x0001_0800_0604, asm.DWord))
	c.jreg(asm.JNE, asm.R0, asm.R1, unusual)
	c.imm(asm.R8, 28)
	c.ja(sound)
	c.mark(unusual)
	// R3 = 8 + 2*hln + 2*pln
	c.ld(asm.R3, sNet+4, asm.Byte)
	c.ld(asm.R2, sNet+5, asm.Byte)
	c.emit(asm.Add.Reg(asm.R3, asm.R2), asm.LSh.Imm(asm.R3, 1), asm.Add.Imm(asm.R3, 8))
	c.jreg(asm.JLE, asm.R8, asm.R3, clipped)
	c.mov(asm.R8, asm.R3)
	c.mark(clipped)
	c.ldbe(asm.R1, sNet, 2)
	for _, check := range []struct {
		off, n int
		want   uint64
		cause  arp.Cause
	}{{0, 2, 1, arp.CauseHWType}, {2, 2, 0x0800, arp.CauseProtoType}, {4, 1, 6, arp.CauseHWSize}, {5, 1, 4, arp.CauseProtoSize}} {
		next := c.label()
		c.ldbe(asm.R0, sNet+check.off, check.n)
		c.jif(asm.JEq, asm.R0, check.want, next)
		c.malformed(filter.LayerARP, filter.ARPCause(check.cause))
		c.ja(odd)
		c.mark(next)
	}
	c.jif(asm.JGE, asm.R8, 28, sound)
	c.malformed(filter.LayerARP, filter.ARPCause(arp.CauseShort))
	c.ja(sized)
	c.mark(odd)
	c.arpOdd(sized)

	c.mark(sound)
	// R4 = flags
	c.imm(asm.R4, flagHasHW|flagHasIPv4)
	if flags {
		c.ldbe(asm.R0, sNet+14, 4)
		c.ldbe(asm.R1, sNet+24, 4)
		c.ldbe(asm.R2, sNet+18, 6)
		c.arpFlags()
	} else {
		c.or(sFlags, flagHasHW|flagHasIPv4)
	}
	c.mark(sized)
	c.st(layerLen(filter.LayerARP), asm.R8, asm.Word)
	c.jif(asm.JLT, asm.R8, 2, seen)
	c.or(sHas, 1<<filter.LayerARP)
	c.mark(seen)
	c.inspected(filter.LayerARP)
	c.ja(done)
}

// arpFlags sets the flags R4 and those that follow from the sender's address R0,
// the target's R1 and the target's hardware address R2.
func (c *code) arpFlags() {
	differ, request, store := c.label(), c.label(), c.label()
	c.ldbe(asm.R3, sNet+6, 2) // opcode
	c.jreg(asm.JNE, asm.R0, asm.R1, differ)
	c.jif(asm.JEq, asm.R3, arp.OpRequest, request)
	c.jif(asm.JNE, asm.R3, arp.OpReply, store)
	c.mark(request)
	c.emit(asm.Or.Imm(asm.R4, flagGratuitous))
	c.jif(asm.JNE, asm.R3, arp.OpRequest, store)
	c.jif(asm.JNE, asm.R2, 0, store)
	c.emit(asm.Or.Imm(asm.R4, flagAnnouncement))
	c.ja(store)
	c.mark(differ)
	c.jif(asm.JNE, asm.R3, arp.OpRequest, store)
	c.jif(asm.JNE, asm.R2, 0, store)
	c.jif(asm.JNE, asm.R0, 0, store)
	c.emit(asm.Or.Imm(asm.R4, flagProbe))
	c.mark(store)
	c.ld(asm.R0, sFlags, asm.Word)
	c.emit(asm.Or.Reg(asm.R0, asm.R4))
	c.st(sFlags, asm.R0, asm.Word)
}

// arpOdd reads the addresses of a packet of other types or sizes, R8 bytes long,
// and goes to out.
func (c *code) arpOdd(out label) {
	// sNum = hln, sNum2 = pln, sAt = end of the addresses
	c.ld(asm.R1, sNet+4, asm.Byte)
	c.ld(asm.R2, sNet+5, asm.Byte)
	c.st(sNum, asm.R1, asm.DWord)
	c.st(sNum2, asm.R2, asm.DWord)
	c.mov(asm.R3, asm.R1)
	c.emit(asm.Add.Reg(asm.R3, asm.R2), asm.LSh.Imm(asm.R3, 1), asm.Add.Imm(asm.R3, 8))
	c.jreg(asm.JLT, asm.R8, asm.R3, out)

	// The protocol addresses, to compare them: R0 and R1 become 0 and 0 if they
	// are the same, 0 and 1 if not.
	for i, dst := range []int{sTmp, sData} {
		c.clear(dst, maxBytes)
		c.mov(asm.R2, asm.R7)
		c.ld(asm.R3, sNum, asm.DWord)
		c.emit(asm.Add.Imm(asm.R2, 8), asm.Add.Reg(asm.R2, asm.R3))
		c.ld(asm.R4, sNum2, asm.DWord)
		if i == 1 {
			c.emit(asm.Add.Reg(asm.R2, asm.R3), asm.Add.Reg(asm.R2, asm.R4))
		}
		c.fetch(dst, 255)
	}
	c.sti(sAt, 1, asm.Word) // differ
	compared := c.label()
	c.ld(asm.R4, sNum2, asm.DWord)
	c.jif(asm.JEq, asm.R4, 0, compared)
	c.same(sTmp, sData, compared)
	c.sti(sAt, 0, asm.Word)
	c.mark(compared)

	// The hardware addresses to where they stand in a packet of the unusual sizes,
	// with the first six bytes of the target's whatever its size, where there are
	// as many, and four of the sender's protocol address.
	// sSize: bit 0 if the target hardware address is all zero, bit 1 the sender's.
	c.sti(sSize, 0, asm.Word)
	for i, z := range []struct{ n, dst int }{{6, sTmp}, {4, sTmp}} {
		no := c.label()
		c.ld(asm.R2, sNum, asm.DWord)
		c.emit(asm.Add.Imm(asm.R2, 8))
		if i == 0 {
			c.ld(asm.R3, sNum2, asm.DWord)
			c.emit(asm.Add.Reg(asm.R2, asm.R3))
		}
		c.mov(asm.R3, asm.R2)
		c.emit(asm.Add.Imm(asm.R3, int32(z.n)))
		c.jreg(asm.JLT, asm.R8, asm.R3, no)
		c.emit(asm.Add.Reg(asm.R2, asm.R7))
		c.fetchAll(z.dst, z.n)
		c.ldbe(asm.R0, z.dst, z.n)
		c.jif(asm.JNE, asm.R0, 0, no)
		c.or(sSize, 1<<i)
		c.mark(no)
	}
	c.arpOddAddresses()
	c.arpOddFlags()
	c.ja(out)
}

// arpOddAddresses brings each pair of addresses of the unusual size to sNet.
func (c *code) arpOddAddresses() {
	noHW, ethernet, noIP := c.label(), c.label(), c.label()
	c.ldbe(asm.R0, sNet, 2)
	c.jif(asm.JEq, asm.R0, 1, ethernet)
	c.jif(asm.JNE, asm.R0, 6, noHW) // IEEE 802
	c.mark(ethernet)
	c.ld(asm.R1, sNum, asm.DWord)
	c.jif(asm.JNE, asm.R1, 6, noHW)
	c.or(sFlags, flagHasHW)
	c.oddAddress(false, false, sNet+8, 6)
	c.oddAddress(true, false, sNet+18, 6)
	c.mark(noHW)
	c.ldbe(asm.R0, sNet+2, 2)
	c.jif(asm.JNE, asm.R0, 0x0800, noIP)
	c.ld(asm.R1, sNum2, asm.DWord)
	c.jif(asm.JNE, asm.R1, 4, noIP)
	c.or(sFlags, flagHasIPv4)
	c.oddAddress(false, true, sNet+14, 4)
	c.oddAddress(true, true, sNet+24, 4)
	c.mark(noIP)
}

func (c *code) oddAddress(target, protocol bool, dst, n int) {
	c.mov(asm.R2, asm.R7)
	c.emit(asm.Add.Imm(asm.R2, 8))
	c.ld(asm.R3, sNum, asm.DWord)
	c.ld(asm.R4, sNum2, asm.DWord)
	if target {
		c.emit(asm.Add.Reg(asm.R2, asm.R3), asm.Add.Reg(asm.R2, asm.R4))
	}
	if protocol {
		c.emit(asm.Add.Reg(asm.R2, asm.R3))
	}
	c.fetchAll(dst, n)
}

// arpOddFlags does what arpFlags does for addresses of any size. It gives them
// numbers that compare alike: equal addresses 0 and 0 or 1 and 1, and so on.
func (c *code) arpOddFlags() {
	c.imm(asm.R4, 0)
	// R0, the sender: 0 if all zero, else 2. R1, the target: R0 + whether they differ.
	c.ld(asm.R5, sSize, asm.Word)
	c.mov(asm.R0, asm.R5)
	c.emit(asm.And.Imm(asm.R0, 2), asm.Xor.Imm(asm.R0, 2))
	c.ld(asm.R1, sAt, asm.Word)
	c.emit(asm.Add.Reg(asm.R1, asm.R0))
	c.mov(asm.R2, asm.R5)
	c.emit(asm.And.Imm(asm.R2, 1), asm.Xor.Imm(asm.R2, 1))
	c.arpFlags()
}
