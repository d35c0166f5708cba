package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

const (
	portDHCPServer, portDHCPClient, portProxyDHCP = 67, 68, 4011
	portPTPEvent, portPTPGeneral, portIEEE1722    = 319, 320, 17220

	minPTPv1 = 33

	dhcpFixed, dhcpCookie = 236, 240 // where the cookie begins and ends
)

// udp decodes the datagram of R8 bytes at R7, with R3 not 0 in a first fragment,
// and what it carries.
func (c *code) udp(done label) {
	const l = filter.LayerUDP
	short, noPayload, fragment, clipped, ports := c.label(), c.label(), c.label(), c.label(), c.label()
	c.st(sNum, asm.R3, asm.DWord) // the fragment
	c.mov(asm.R2, asm.R7)
	c.mov(asm.R4, asm.R8)
	c.fetch(sUDP, 8)
	c.st(layerAt(l), asm.R7, asm.Word)
	c.jif(asm.JLT, asm.R8, 8, short)
	c.sti(layerLen(l), 8, asm.Word)
	c.or(sHas, 1<<l)
	c.or(sFlags, flagUDP)
	c.ldbe(asm.R2, sUDP+4, 2)
	c.emit(asm.Add.Imm(asm.R7, 8), asm.Sub.Imm(asm.R8, 8))
	c.jif(asm.JLT, asm.R2, 8, noPayload)
	c.emit(asm.Sub.Imm(asm.R2, 8))
	c.jreg(asm.JLE, asm.R2, asm.R8, clipped)
	// The length of a first fragment is the whole datagram's.
	c.ld(asm.R0, sNum, asm.DWord)
	c.sti(sSize, 0, asm.Word) // fault found
	c.jif(asm.JNE, asm.R0, 0, ports)
	c.ja(fragment)
	c.mark(noPayload)
	c.imm(asm.R8, 0)
	c.mark(fragment)
	c.malformed(l, filter.FrameCause(frame.CauseUDPLen))
	c.sti(sSize, 1, asm.Word)
	c.ja(ports)
	c.mark(clipped)
	c.mov(asm.R8, asm.R2)
	c.sti(sSize, 0, asm.Word)
	c.ja(ports)

	c.mark(short)
	c.malformed(l, filter.FrameCause(frame.CauseShortUDP))
	c.jif(asm.JLT, asm.R8, 4, done)
	c.st(layerLen(l), asm.R8, asm.Word)
	c.or(sHas, 1<<l)
	c.or(sFlags, flagUDP)
	c.sti(sSize, 1, asm.Word)
	c.imm(asm.R8, 0)
	c.mark(ports)
	c.ports(done)
}

// ports decodes the payload of R8 bytes at R7 by the ports at sUDP; sSize says
// whether the datagram is malformed, sNum whether it is a first fragment.
func (c *code) ports(done label) {
	isDHCP, isPTP, isProxy, isAVTP := c.label(), c.label(), c.label(), c.label()
	c.ldbe(asm.R1, sUDP, 2)
	c.ldbe(asm.R2, sUDP+2, 2)
	for _, p := range []struct {
		port uint64
		to   label
	}{{portDHCPServer, isDHCP}, {portDHCPClient, isDHCP}, {portPTPEvent, isPTP}, {portPTPGeneral, isPTP}, {portProxyDHCP, isProxy}, {portIEEE1722, isAVTP}} {
		c.jif(asm.JEq, asm.R1, p.port, p.to)
		c.jif(asm.JEq, asm.R2, p.port, p.to)
	}
	c.ja(done)
	c.mark(isDHCP)
	c.dhcp(done)
	c.mark(isProxy)
	c.proxyDHCP(done)
	c.mark(isPTP)
	c.ptp(true, done)
	c.mark(isAVTP)
	c.jif(asm.JEq, asm.R8, 0, done)
	c.avtp(done)
}

// ptp is Packet.decodePTP for R8 bytes at R7.
func (c *code) ptp(overUDP bool, done label) {
	const l = filter.LayerPTP
	show, later := c.label(), c.label()
	c.jif(asm.JLT, asm.R8, 8, done)
	c.mov(asm.R2, asm.R7)
	c.fetchAll(sPTP, 8)
	if overUDP {
		c.ldbe(asm.R0, sPTP, 2)
		c.jif(asm.JNE, asm.R0, 1, later)
		c.jif(asm.JGE, asm.R8, minPTPv1, show)
		c.ja(done)
		c.mark(later)
		c.ld(asm.R0, sPTP+1, asm.Byte)
		c.emit(asm.And.Imm(asm.R0, 0x0f))
		c.jif(asm.JNE, asm.R0, 2, done)
	}
	c.ldbe(asm.R0, sPTP+2, 2)
	c.jif(asm.JLT, asm.R0, 8, show)
	c.jreg(asm.JGE, asm.R0, asm.R8, show)
	c.mov(asm.R8, asm.R0)
	c.mark(show)
	c.present(l)
	c.inspected(l)
	c.ja(done)
}

// avtp shows an IEEE 1722 PDU of R8 bytes at R7.
func (c *code) avtp(done label) {
	c.mov(asm.R2, asm.R7)
	c.mov(asm.R4, asm.R8)
	c.fetch(sPTP, 8)
	c.present(filter.LayerIEEE1722)
	c.inspected(filter.LayerIEEE1722)
	c.ja(done)
}

// dhcp is Packet.decodeDHCP for R8 bytes at R7.
func (c *code) dhcp(done label) {
	const l = filter.LayerDHCP
	sound, whole, parsed, noted, single := c.label(), c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R0, sSize, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, sound)
	c.or(sBad, 1<<l) // claims to be DHCP, and is not
	c.mark(sound)
	c.dhcpHead()
	c.showDHCP()
	c.ld(asm.R0, sNum, asm.DWord)
	c.jif(asm.JEq, asm.R0, 0, whole)
	c.malformed(l, filter.CauseDHCPFragment)
	c.mark(whole)
	fixed := c.label()
	c.jif(asm.JGE, asm.R8, dhcpFixed, fixed)
	c.malformed(l, filter.DHCPCause(dhcp.CauseShort))
	c.ja(parsed)
	c.mark(fixed)
	c.dhcpWalk()
	c.ld(asm.R1, sNote, asm.Word)
	c.jif(asm.JEq, asm.R1, 0, parsed)
	c.or(sBad, 1<<l)
	c.ld(asm.R0, sCause, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, noted)
	c.st(sCause, asm.R1, asm.Word)
	c.mark(noted)
	c.mark(parsed)
	c.ctx(asm.R0, skbGSOSize)
	c.jif(asm.JEq, asm.R0, 0, single)
	c.malformed(l, filter.CauseGSO)
	c.mark(single)
	c.ja(done)
}

// proxyDHCP shows a message on PXE's own port, which is not judged.
func (c *code) proxyDHCP(done label) {
	single := c.label()
	c.ctx(asm.R0, skbGSOSize)
	c.jif(asm.JEq, asm.R0, 0, single)
	c.malformed(filter.LayerDHCP, filter.CauseGSO)
	c.mark(single)
	c.dhcpHead()
	c.jif(asm.JLT, asm.R8, dhcpCookie, done)
	c.ldbe(asm.R0, sDHCP+dhcpFixed, 4)
	c.jif(asm.JNE, asm.R0, dhcp.Cookie, done)
	c.showDHCP()
	c.dhcpWalk()
	c.ja(done)
}

// dhcpHead loads the fixed part and the cookie of R8 bytes at R7.
func (c *code) dhcpHead() {
	c.mov(asm.R2, asm.R7)
	c.mov(asm.R4, asm.R8)
	c.fetch(sDHCP, dhcpCookie)
	c.st(layerAt(filter.LayerDHCP), asm.R7, asm.Word)
}

// showDHCP is Packet.setDHCP. It comes before the options are walked, whose fields
// are compared with the message's.
func (c *code) showDHCP() {
	plain, need, done := c.label(), c.label(), c.label()
	c.jif(asm.JLT, asm.R8, 3, done)
	c.ld(asm.R0, sDHCP+2, asm.Byte)
	c.jif(asm.JEq, asm.R0, 0, plain)
	c.ld(asm.R1, sDHCP, asm.Byte)
	c.jif(asm.JEq, asm.R1, 1, need)
	c.jif(asm.JNE, asm.R1, 2, plain)
	c.mark(need)
	c.min(asm.R0, 16)
	c.emit(asm.Add.Imm(asm.R0, 28))
	c.jreg(asm.JLT, asm.R8, asm.R0, done)
	c.mark(plain)
	c.present(filter.LayerDHCP)
	c.or(sFlags, flagDHCP)
	c.clear(sAtoms, atomBytes)
	c.mark(done)
}
