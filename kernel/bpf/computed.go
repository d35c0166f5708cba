package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// reader emits the i-th occurrence of a field, counted from 0, or goes to absent;
// it reports false where there can be no such occurrence.
type reader func(c *code, i int, absent label) (operand, bool)

// once is a field with at most one occurrence.
func once(read func(c *code, absent label) operand) reader {
	return func(c *code, i int, absent label) (operand, bool) {
		if i > 0 {
			return operand{}, false
		}
		return read(c, absent), true
	}
}

// word is a number that stands in the scratch area if a flag is set.
func word(off int, flag int32) reader {
	return once(func(c *code, absent label) operand {
		if flag != 0 {
			c.testBits(sFlags, flag, absent)
		}
		c.ld(regValue, off, asm.Word)
		return operand{}
	})
}

// flagged is a field that occurs, and is true, if a bit is set.
func flagged(off int, bit int32) reader {
	return once(func(c *code, absent label) operand {
		c.testBits(off, bit, absent)
		c.imm(regValue, 1)
		return operand{}
	})
}

func bad(l filter.Layer) reader { return flagged(sBad, 1<<l) }

// arpAddress is an address of n bytes at off of the network layer.
func arpAddress(off, n int, flag int32) reader {
	return once(func(c *code, absent label) operand {
		c.testBits(sFlags, flag, absent)
		if off == 24 { // a DRARP error carries a number there (RFC 1931)
			c.ldbe(asm.R0, sNet+6, 2)
			c.jif(asm.JEq, asm.R0, 7, absent)
		}
		c.ldbe(regValue, sNet+off, n)
		return operand{}
	})
}

// headType is the number behind the Ethernet addresses, if it is of a kind.
func headType(kind func(c *code, absent label)) reader {
	return once(func(c *code, absent label) operand {
		c.ld(asm.R0, layerLen(filter.LayerEth), asm.Word)
		c.jif(asm.JLT, asm.R0, frame.HeaderLen, absent)
		c.ldbe(regValue, sHead+12, 2)
		kind(c, absent)
		return operand{}
	})
}

// ptpByte is a byte of a PTP message of version 2, as filter's ptpField.
func ptpByte(off int, mask int32) reader {
	return once(func(c *code, absent label) operand {
		ethernet := c.label()
		c.testBits(sHas, 1<<filter.LayerPTP, absent)
		c.testBits(sFlags, flagUDP, ethernet)
		c.ld(asm.R0, sPTP+1, asm.Byte)
		c.emit(asm.And.Imm(asm.R0, 0x0f))
		c.jif(asm.JNE, asm.R0, 2, absent)
		c.mark(ethernet)
		if off > 0 {
			c.ldbe(asm.R0, sPTP+2, 2)
			c.jif(asm.JLE, asm.R0, uint64(off), absent)
		}
		c.ld(regValue, sPTP+off, asm.Byte)
		c.emit(asm.And.Imm(regValue, mask))
		return operand{}
	})
}

// text is text of at most 15 bytes with a NUL behind it; its length is not known.
func text(off int, flag int32) reader {
	return once(func(c *code, absent label) operand {
		c.testBits(sFlags, flag, absent)
		// The length: the place of the first NUL.
		found := c.label()
		c.imm(asm.R1, 0)
		for i := range 16 {
			c.ld(asm.R0, off+i, asm.Byte)
			c.jif(asm.JEq, asm.R0, 0, found)
			c.emit(asm.Add.Imm(asm.R1, 1))
		}
		c.mark(found)
		c.st(sText, asm.R1, asm.Word)
		return operand{kind: inMem, mem: off, most: 16, n: -1, lenSlot: sText}
	})
}

// computed are the fields that take more than a place to find.
var computed = map[string]reader{
	"frame.len": word(sLen, 0),
	"eth.type":  headType(func(c *code, absent label) { c.etherType(absent) }),
	"eth.len": headType(func(c *code, absent label) {
		c.jif(asm.JEq, regValue, 0, absent)
		c.jif(asm.JGT, regValue, 1500, absent)
	}),
	"vlan.etype":    vlanType,
	"llc.oui":       word(sOUI, flagSNAP),
	"llc.type":      once(llcType),
	"eth.malformed": bad(filter.LayerEth),

	"arp.src.hw_mac":     arpAddress(8, 6, flagHasHW),
	"arp.src.proto_ipv4": arpAddress(14, 4, flagHasIPv4),
	"arp.dst.hw_mac":     arpAddress(18, 6, flagHasHW),
	"arp.dst.proto_ipv4": arpAddress(24, 4, flagHasIPv4),
	"arp.isgratuitous":   flagged(sFlags, flagGratuitous),
	"arp.isprobe":        flagged(sFlags, flagProbe),
	"arp.isannouncement": flagged(sFlags, flagAnnouncement),
	"arp.malformed":      bad(filter.LayerARP),

	"ip.version":     once(ipVersion),
	"ip.hdr_len":     once(ipHdrLen),
	"ip.malformed":   bad(filter.LayerIPv4),
	"ipv6.malformed": bad(filter.LayerIPv6),
	"udp.malformed":  bad(filter.LayerUDP),

	"ptp.v2.messagetype":  ptpByte(0, 0x0f),
	"ptp.v2.domainnumber": ptpByte(4, 0xff),
	"ieee1722.subtype":    once(avtpSubtype),

	"dhcp.secs":        once(dhcpSecs),
	"dhcp.hw.type":     once(dhcpHWType),
	"dhcp.hw.mac_addr": once(dhcpMAC),
	"dhcp.cookie":      once(dhcpCookieField),
	"dhcp.option.type": optionTypeRest,
	"dhcp.malformed":   bad(filter.LayerDHCP),

	"frame.malformed": once(func(c *code, absent label) operand {
		c.ld(asm.R0, sCause, asm.Word)
		c.jif(asm.JEq, asm.R0, 0, absent)
		c.imm(regValue, 1)
		return operand{}
	}),
	"sender.uid":  word(sUID, flagSender),
	"sender.pid":  word(sPID, flagSender),
	"sender.comm": text(sComm, flagSender),
	senderCgroup: once(func(c *code, absent label) operand {
		c.testBits(sFlags, flagSender, absent)
		return operand{kind: inMem, mem: sCgroup, most: cgroupRoom, n: -1, lenSlot: sCgroupLen}
	}),
	"iface.name": text(sIface, flagIface),
	"iface.mac": once(func(c *code, absent label) operand {
		c.testBits(sFlags, flagIface, absent)
		c.ldbe(regValue, sIfaceMAC, 8)
		c.emit(asm.LoadImm(asm.R0, -1<<63, asm.DWord))
		c.jreg(asm.JEq, regValue, asm.R0, absent) // it has none
		return operand{}
	}),
	"iface.mark": once(func(c *code, _ label) operand {
		c.ctx(regValue, skbMark)
		return operand{}
	}),
	"iface.ingress": flagged(sFlags, flagIngress),
}

func (c *code) etherType(absent label) {
	ok := c.label()
	c.jif(asm.JEq, regValue, 0, ok)
	c.jif(asm.JLT, regValue, 1536, absent)
	c.mark(ok)
}

func vlanType(c *code, i int, absent label) (operand, bool) {
	if i == frame.MaxTags {
		return operand{}, false
	}
	c.ld(asm.R0, sNTags, asm.Word)
	c.jif(asm.JLE, asm.R0, uint64(i), absent)
	c.ld(asm.R0, sTagLen+4*i, asm.Word)
	c.jif(asm.JLT, asm.R0, 4, absent)
	c.ld(regValue, sTagType+4*i, asm.Word)
	c.jif(asm.JLE, regValue, 1500, absent)
	return operand{}, true
}

func llcType(c *code, absent label) operand {
	ok := c.label()
	c.testBits(sFlags, flagSNAP, absent)
	c.ld(asm.R0, sOUI, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, ok)
	c.jif(asm.JNE, asm.R0, 0x0000f8, absent)
	c.mark(ok)
	c.ld(regValue, sSNAP, asm.Word)
	return operand{}
}

func ipVersion(c *code, absent label) operand {
	ok := c.label()
	c.ld(asm.R0, layerLen(filter.LayerIPv4), asm.Word)
	c.jif(asm.JNE, asm.R0, 0, ok)
	c.ld(asm.R0, layerLen(filter.LayerIPv6), asm.Word)
	c.jif(asm.JEq, asm.R0, 0, absent)
	c.mark(ok)
	c.ld(regValue, sNet, asm.Byte)
	c.emit(asm.RSh.Imm(regValue, 4))
	return operand{}
}

func ipHdrLen(c *code, absent label) operand {
	c.ld(asm.R0, layerLen(filter.LayerIPv4), asm.Word)
	c.jif(asm.JEq, asm.R0, 0, absent)
	c.ihl(regValue, absent)
	return operand{}
}

func avtpSubtype(c *code, absent label) operand {
	ethernet, read := c.label(), c.label()
	c.ld(asm.R1, layerLen(filter.LayerIEEE1722), asm.Word)
	c.testBits(sFlags, flagUDP, ethernet)
	c.jif(asm.JLE, asm.R1, 4, absent)
	c.ld(regValue, sPTP+4, asm.Byte)
	c.ja(read)
	c.mark(ethernet)
	c.jif(asm.JLE, asm.R1, 0, absent)
	c.ld(regValue, sPTP, asm.Byte)
	c.mark(read)
	return operand{}
}

func dhcpSecs(c *code, absent label) operand {
	done := c.label()
	c.ld(asm.R0, layerLen(filter.LayerDHCP), asm.Word)
	c.jif(asm.JLT, asm.R0, 10, absent)
	c.ldbe(regValue, sDHCP+8, 2)
	c.jif(asm.JLE, regValue, 0xff, done)
	c.mov(asm.R0, regValue)
	c.emit(asm.And.Imm(asm.R0, 0xff))
	c.jif(asm.JNE, asm.R0, 0, done)
	c.emit(asm.RSh.Imm(regValue, 8))
	c.mark(done)
	return operand{}
}

func dhcpHWType(c *code, absent label) operand {
	c.testBits(sFlags, flagDHCP, absent)
	c.ld(regValue, sDHCP+1, asm.Byte)
	return operand{}
}

func dhcpMAC(c *code, absent label) operand {
	ok := c.label()
	c.testBits(sFlags, flagDHCP, absent)
	c.ld(asm.R0, layerLen(filter.LayerDHCP), asm.Word)
	c.jif(asm.JLT, asm.R0, 34, absent)
	c.ld(asm.R0, sDHCP+2, asm.Byte)
	c.jif(asm.JNE, asm.R0, 6, absent)
	c.ld(asm.R0, sDHCP+1, asm.Byte)
	c.jif(asm.JEq, asm.R0, 1, ok)
	c.jif(asm.JNE, asm.R0, 6, absent)
	c.mark(ok)
	c.ldbe(regValue, sDHCP+28, 6)
	return operand{}
}

func dhcpCookieField(c *code, absent label) operand {
	c.testBits(sFlags, flagDHCP, absent)
	c.testBits(sFlags, flagCookie, absent)
	c.imm(regValue, dhcp.Cookie)
	return operand{}
}

// optionTypeRest are the codes that are not those of a whole option.
func optionTypeRest(c *code, i int, absent label) (operand, bool) {
	if i > 1 {
		return operand{}, false
	}
	c.testBits(sFlags, flagDHCP, absent)
	c.testBits(sFlags, flagCookie, absent)
	if i == 0 {
		c.ld(regValue, sCut, asm.Word)
		c.jif(asm.JEq, regValue, 0, absent)
	} else {
		c.testBits(sWalkFlags, walkBlank, absent)
		c.imm(regValue, 0)
	}
	return operand{}, true
}
