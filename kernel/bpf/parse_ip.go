package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/frame"
)

// Protocol numbers and ports with a meaning to the parser, as in filter.
const (
	protoTCP = 6

	etherARP, etherRARP, etherIPv4, etherIPv6 = 0x0806, 0x8035, 0x0800, 0x86dd
	etherPTP, etherIEEE1722                   = 0x88f7, 0x22f0
)

// network decodes the network layer as filter.Packet.Decode does, and goes to done.
func (c *code) network(arpFlags bool, done label) {
	arp, ipv4, ipv6, ptp, avtp, udp := c.label(), c.label(), c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R0, sEther, asm.Word)
	c.jif(asm.JEq, asm.R0, etherARP, arp)
	c.jif(asm.JEq, asm.R0, etherIPv4, ipv4)
	c.jif(asm.JEq, asm.R0, etherIPv6, ipv6)
	c.jif(asm.JEq, asm.R0, etherRARP, arp)
	c.jif(asm.JEq, asm.R0, etherPTP, ptp)
	c.jif(asm.JEq, asm.R0, etherIEEE1722, avtp)
	c.ja(done)

	c.mark(arp)
	c.arp(arpFlags, done)
	c.mark(ipv4)
	c.ipv4(udp, done)
	c.mark(ipv6)
	c.ipv6(udp, done)
	c.mark(udp)
	c.udp(done)
	for _, l := range []struct {
		at    label
		layer filter.Layer
	}{{ptp, filter.LayerPTP}, {avtp, filter.LayerIEEE1722}} {
		c.mark(l.at)
		c.ld(asm.R7, sNetAt, asm.Word)
		c.ld(asm.R8, sNetLen, asm.Word)
		if l.layer == filter.LayerPTP {
			c.ptp(false, done)
		} else {
			c.avtp(done)
		}
	}
}

// ipv4 decodes the header at sNet and goes to udp with the payload at R7, R8
// bytes of it, and R3 not 0 in a first fragment.
func (c *code) ipv4(udp, done label) {
	const l = filter.LayerIPv4
	whole, short1, short4, shortAll, headed := c.label(), c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R7, sNetAt, asm.Word)
	c.ld(asm.R8, sNetLen, asm.Word)
	c.st(layerAt(l), asm.R7, asm.Word)
	c.jif(asm.JGE, asm.R8, 20, whole)

	// A header that is cut: what there is of it, up to what makes no sense.
	c.malformed(l, filter.FrameCause(frame.CauseShortIPv4))
	c.jif(asm.JEq, asm.R8, 0, done)
	c.ihl(asm.R1, short1)
	c.jif(asm.JLT, asm.R1, 20, short1)
	c.jif(asm.JLT, asm.R8, 4, shortAll)
	c.ldbe(asm.R2, sNet+2, 2)
	c.jif(asm.JEq, asm.R2, 0, shortAll)
	c.jreg(asm.JLT, asm.R2, asm.R1, short4)
	c.ja(shortAll)
	c.mark(short1)
	c.min(asm.R8, 1)
	c.ja(shortAll)
	c.mark(short4)
	c.min(asm.R8, 4)
	c.mark(shortAll)
	c.present(l)
	c.ja(done)

	c.mark(whole)
	c.ipv4Lengths(done, headed)
	c.mark(headed)
	c.ipv4Payload(udp, done)
}

// ihl puts the header's length in bytes into dst, or goes to wrong if the
// version is not 4.
func (c *code) ihl(dst asm.Register, wrong label) {
	c.ld(dst, sNet, asm.Byte)
	c.mov(asm.R0, dst)
	c.emit(asm.RSh.Imm(asm.R0, 4))
	c.jif(asm.JNE, asm.R0, 4, wrong)
	c.emit(asm.And.Imm(dst, 0x0f), asm.LSh.Imm(dst, 2))
}

// ipv4Lengths checks the lengths of a header that is there; it goes to headed
// with the payload at R7 and its length in R8.
func (c *code) ipv4Lengths(done, headed label) {
	const l = filter.LayerIPv4
	version, hdrLen, total, beyond, clip, bigTCP := c.label(), c.label(), c.label(), c.label(), c.label(), c.label()
	stop := func(at label, cause frame.Cause, n uint64) {
		c.mark(at)
		c.malformed(l, filter.FrameCause(cause))
		if n > 0 {
			c.imm(asm.R8, n)
		}
		c.present(l)
		c.ja(done)
	}
	tooLong := c.label()
	c.ihl(asm.R1, version)
	c.jif(asm.JLT, asm.R1, 20, hdrLen)
	c.ldbe(asm.R2, sNet+2, 2)
	sane := c.label()
	c.jif(asm.JEq, asm.R2, 0, sane)
	c.jreg(asm.JLT, asm.R2, asm.R1, total)
	c.mark(sane)
	c.jreg(asm.JGT, asm.R1, asm.R8, tooLong)
	// From here on the payload can be read.
	c.st(layerLen(l), asm.R1, asm.Word)
	c.or(sHas, 1<<l)
	c.emit(asm.Add.Reg(asm.R7, asm.R1), asm.Sub.Reg(asm.R8, asm.R1))
	c.jif(asm.JEq, asm.R2, 0, bigTCP)
	c.emit(asm.Sub.Reg(asm.R2, asm.R1))
	c.jreg(asm.JLE, asm.R2, asm.R8, clip)
	c.mark(beyond)
	c.malformed(l, filter.FrameCause(frame.CauseIPv4TotalLen))
	c.ja(headed)
	c.mark(bigTCP) // longer than the field can say
	c.ld(asm.R0, sNet+9, asm.Byte)
	c.jif(asm.JNE, asm.R0, protoTCP, beyond)
	c.ctx(asm.R0, skbGSOSize)
	c.jif(asm.JEq, asm.R0, 0, beyond)
	c.ja(headed)
	c.mark(clip)
	c.mov(asm.R8, asm.R2)
	c.ja(headed)

	stop(version, frame.CauseIPVersion, 1)
	stop(hdrLen, frame.CauseIPv4HdrLen, 1)
	stop(total, frame.CauseIPv4TotalLen, 4)
	stop(tooLong, frame.CauseIPv4HdrLen, 0)
}

// ipv4Payload goes behind the authentication headers of an unfragmented packet or
// first fragment, to UDP.
func (c *code) ipv4Payload(udp, done label) {
	isUDP := c.label()
	c.ldbe(asm.R3, sNet+6, 2)
	c.mov(asm.R0, asm.R3)
	c.emit(asm.And.Imm(asm.R0, 0x1fff))
	c.jif(asm.JNE, asm.R0, 0, done)
	c.ld(asm.R0, sNet+9, asm.Byte)
	c.jif(asm.JEq, asm.R0, frame.ProtoUDP, isUDP)
	c.jif(asm.JNE, asm.R0, frame.ProtoAH, done)
	tooMany, skipped := c.label(), c.label()
	for range frame.MaxExtensions {
		c.extension(tooMany, func() { c.emit(asm.LSh.Imm(asm.R3, 2)) })
		c.jif(asm.JNE, asm.R0, frame.ProtoAH, skipped)
	}
	c.mark(tooMany)
	c.malformed(filter.LayerIPv4, filter.FrameCause(frame.CauseAuthHeader))
	c.ja(done)
	c.mark(skipped)
	c.jif(asm.JNE, asm.R0, frame.ProtoUDP, done)
	c.mark(isUDP)
	c.ldbe(asm.R3, sNet+6, 2)
	c.emit(asm.And.Imm(asm.R3, 0x2000))
	c.ja(udp)
}

// extension goes behind the extension header at R7 and puts the protocol of what
// follows into R0; it goes to beyond where the header is longer than R8. scale
// makes R3, the header's length byte, its length in bytes, less 8.
func (c *code) extension(beyond label, scale func()) {
	c.jif(asm.JLT, asm.R8, 8, beyond)
	c.mov(asm.R2, asm.R7)
	c.fetchAll(sTmp, 4)
	c.ld(asm.R3, sTmp+1, asm.Byte)
	scale()
	c.emit(asm.Add.Imm(asm.R3, 8))
	c.jreg(asm.JGT, asm.R3, asm.R8, beyond)
	c.emit(asm.Add.Reg(asm.R7, asm.R3), asm.Sub.Reg(asm.R8, asm.R3))
	c.ld(asm.R0, sTmp, asm.Byte)
}

// ipv6 decodes the header at sNet and those behind it, as frame.IPv6.Decode does,
// and goes to udp like ipv4.
func (c *code) ipv6(udp, done label) {
	const l = filter.LayerIPv6
	short, version, beyond, walk, jumbo := c.label(), c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R7, sNetAt, asm.Word)
	c.ld(asm.R8, sNetLen, asm.Word)
	c.jif(asm.JLT, asm.R8, 40, short)
	c.ld(asm.R0, sNet, asm.Byte)
	c.emit(asm.RSh.Imm(asm.R0, 4))
	c.jif(asm.JNE, asm.R0, 6, version)
	c.present(l)
	c.sti(layerLen(l), 40, asm.Word)
	c.emit(asm.Add.Imm(asm.R7, 40), asm.Sub.Imm(asm.R8, 40))
	c.sti(sAt, 0, asm.Word) // PayloadLen is beyond the frame
	c.ldbe(asm.R2, sNet+4, 2)
	c.jreg(asm.JGT, asm.R2, asm.R8, beyond)
	c.jif(asm.JEq, asm.R2, 0, jumbo)
	c.mov(asm.R8, asm.R2)
	c.ja(walk)

	c.mark(short)
	c.present(l)
	c.malformed(l, filter.FrameCause(frame.CauseShortIPv6))
	c.ja(done)
	c.mark(version)
	c.imm(asm.R8, 1)
	c.present(l)
	c.malformed(l, filter.FrameCause(frame.CauseIPVersion))
	c.ja(done)
	c.mark(beyond)
	c.malformed(l, filter.FrameCause(frame.CauseIPv6Len))
	c.ja(walk)

	// A jumbogram (RFC 2675) or BIG TCP: no fault is found with what follows.
	c.mark(jumbo)
	plain := c.label()
	isTCP := c.label()
	c.jif(asm.JEq, asm.R8, 0, plain)
	c.ctx(asm.R0, skbGSOSize)
	c.jif(asm.JEq, asm.R0, 0, plain)
	c.ld(asm.R0, sNet+6, asm.Byte)
	c.jif(asm.JEq, asm.R0, protoTCP, isTCP)
	c.jif(asm.JNE, asm.R0, 0, plain)
	c.ld(asm.R0, sNet+40, asm.Byte)
	c.jif(asm.JNE, asm.R0, protoTCP, plain)
	c.mark(isTCP)
	c.sti(sAt, 1, asm.Word)
	c.mark(plain)
	c.imm(asm.R8, 0)

	c.mark(walk)
	c.ipv6Walk(udp, done)
}

// ipv6Walk goes behind the extension headers in front of R8 bytes at R7.
func (c *code) ipv6Walk(udp, done label) {
	const l = filter.LayerIPv6
	broken, payload, isUDP := c.label(), c.label(), c.label()
	c.sti(sSize, 0, asm.Word) // more fragments
	c.ld(asm.R0, sNet+6, asm.Byte)
	for range frame.MaxExtensions + 1 {
		plain, fragment, auth, next := c.label(), c.label(), c.label(), c.label()
		read := c.label()
		for _, proto := range []uint64{0, 43, 60} {
			c.jif(asm.JEq, asm.R0, proto, plain)
		}
		c.jif(asm.JEq, asm.R0, frame.ProtoFragment, fragment)
		c.jif(asm.JEq, asm.R0, frame.ProtoAH, auth)
		c.ja(payload)

		c.mark(auth)
		c.extension(broken, func() { c.emit(asm.LSh.Imm(asm.R3, 2)) })
		c.ja(read)
		c.mark(plain)
		c.extension(broken, func() { c.emit(asm.LSh.Imm(asm.R3, 3)) })
		c.ja(read)
		c.mark(fragment)
		c.extension(broken, func() { c.imm(asm.R3, 0) })
		c.ldbe(asm.R1, sTmp+2, 2)
		c.mov(asm.R2, asm.R1)
		c.emit(asm.And.Imm(asm.R2, 1))
		c.ld(asm.R3, sSize, asm.Word)
		c.emit(asm.Or.Reg(asm.R3, asm.R2))
		c.st(sSize, asm.R3, asm.Word)
		c.emit(asm.And.Imm(asm.R1, 0xfff8))
		// What is not the first fragment has no header behind this one, which is
		// not counted.
		c.jif(asm.JNE, asm.R1, 0, done)
		c.imm(asm.R3, 8)
		c.mark(read)
		c.ld(asm.R1, layerLen(l), asm.Word)
		c.emit(asm.Add.Reg(asm.R1, asm.R3))
		c.st(layerLen(l), asm.R1, asm.Word)
		c.ja(next)
		c.mark(next)
	}
	c.mark(broken)
	c.ld(asm.R0, sAt, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, done)
	c.malformed(l, filter.FrameCause(frame.CauseIPv6Ext))
	c.ja(done)
	c.mark(payload)
	c.jif(asm.JEq, asm.R0, frame.ProtoUDP, isUDP)
	c.ja(done)
	c.mark(isUDP)
	c.ld(asm.R3, sSize, asm.Word)
	c.ja(udp)
}
