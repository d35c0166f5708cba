package filter

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/postern-fw/postern/proto/arp"
)

// Summary tells in one line what the frame is, as tcpdump would:
//
//	vlan 5, ARP who-has 192.0.2.1 tell 192.0.2.2, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff
//
// A malformed frame's line ends with the cause.
func (p *Packet) Summary() string { return string(p.AppendSummary(nil)) }

// AppendSummary appends Summary's line to dst. It allocates only what dst lacks.
func (p *Packet) AppendSummary(dst []byte) []byte {
	for _, t := range p.Frame().Tags() {
		dst = append(dst, "vlan "...)
		dst = strconv.AppendUint(dst, uint64(t.ID()), 10)
		dst = append(dst, ", "...)
	}
	dst = p.appendPayload(dst)
	if b := p.b; len(b) >= 12 {
		dst = append(dst, ", "...)
		dst = appendMAC(dst, b[6:12])
		dst = append(dst, []byte(" > ")...)
		dst = appendMAC(dst, b[:6])
	}
	if p.Malformed != 0 {
		dst = append(dst, " [malformed: "...)
		dst = append(dst, p.Malformed.String()...)
		dst = append(dst, ']')
	}
	return dst
}

// appendPayload goes by the innermost view that is sound enough to be shown.
func (p *Packet) appendPayload(dst []byte) []byte {
	f := p.Frame()
	switch {
	case p.HasARP:
		return p.appendARP(dst)
	case p.HasDHCP && p.DHCP().CHAddr() != nil:
		return p.appendDHCP(dst)
	case p.HasUDP:
		dst = append(dst, "UDP "...)
		dst = p.appendAddresses(dst, func(dst []byte, source bool) []byte {
			if source {
				return appendNumber(dst, ".", uint64(p.UDP().SrcPort))
			}
			return appendNumber(dst, ".", uint64(p.UDP().DstPort))
		})
		return appendNumber(dst, " length ", uint64(p.UDP().Length))
	case p.HasIPv4 && len(p.IPv4().Header) >= 20:
		dst = p.appendAddresses(append(dst, "IPv4 "...), nil)
		dst = appendNumber(dst, " proto ", uint64(p.IPv4().Proto))
		return appendFragment(dst, p.IPv4().Fragment(), p.IPv4().FragOffset)
	case p.HasIPv6 && len(p.IPv6().Header) >= 40:
		dst = p.appendAddresses(append(dst, "IPv6 "...), nil)
		dst = appendNumber(dst, " proto ", uint64(p.IPv6().Proto))
		return appendFragment(dst, p.IPv6().MoreFrags || p.IPv6().FragOffset != 0, p.IPv6().FragOffset)
	case f.EtherType != 0:
		return appendHex(dst, "0x", uint64(f.EtherType), 4)
	case f.HasSNAP:
		return appendHex(dst, "SNAP oui 0x", uint64(f.OUI), 6)
	case f.Is8023:
		return appendNumber(dst, "802.3 length ", uint64(f.Length))
	}
	return append(appendNumber(dst, "frame of ", uint64(len(f.Bytes))), " bytes"...)
}

// appendAddresses writes the network layer's addresses, each followed by what
// suffix, if not nil, adds.
func (p *Packet) appendAddresses(dst []byte, suffix func(dst []byte, source bool) []byte) []byte {
	for _, source := range []bool{true, false} {
		switch {
		case p.HasIPv4 && source:
			dst = appendIPv4Addr(dst, p.IPv4().Src)
		case p.HasIPv4:
			dst = appendIPv4Addr(dst, p.IPv4().Dst)
		case p.HasIPv6 && source:
			dst = netip.AddrFrom16(p.IPv6().Src).AppendTo(dst)
		case p.HasIPv6:
			dst = netip.AddrFrom16(p.IPv6().Dst).AppendTo(dst)
		}
		if suffix != nil {
			dst = suffix(dst, source)
		}
		if source {
			dst = append(dst, " > "...)
		}
	}
	return dst
}

func appendFragment(dst []byte, fragment bool, offset uint16) []byte {
	if !fragment {
		return dst
	}
	return appendNumber(dst, " fragment at ", uint64(offset))
}

func (p *Packet) appendARP(dst []byte) []byte {
	a := p.ARP()
	srcHW, dstHW := a.SrcHW(), a.DstHW()
	name := "ARP"
	if p.Frame().EtherType == etherRARP {
		name = "RARP"
	}
	dst = append(dst, name...)
	switch {
	case a.Malformed != arp.CauseNone:
		return dst
	case name == "RARP":
		dst = appendNumber(dst, " opcode ", uint64(a.Opcode()))
		dst = append(dst, " who-is "...)
		dst = appendMAC(dst, dstHW[:])
		dst = append(dst, " tell "...)
		return appendMAC(dst, srcHW[:])
	case a.Opcode() == arp.OpReply:
		dst = append(dst, " reply "...)
		dst = appendIPv4Addr(dst, a.SrcIPv4())
		dst = append(dst, " is-at "...)
		return appendMAC(dst, srcHW[:])
	case a.Opcode() != arp.OpRequest:
		dst = appendNumber(dst, " opcode ", uint64(a.Opcode()))
	}
	dst = append(dst, " who-has "...)
	dst = appendIPv4Addr(dst, a.DstIPv4())
	dst = append(dst, " tell "...)
	dst = appendIPv4Addr(dst, a.SrcIPv4())
	if string(srcHW[:]) != string(p.b[6:12]) {
		dst = append(dst, " at "...)
		dst = appendMAC(dst, srcHW[:])
	}
	return dst
}

var dhcpTypes = [...]string{1: "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM",
	"FORCERENEW", "LEASEQUERY", "LEASEUNASSIGNED", "LEASEUNKNOWN", "LEASEACTIVE"}

// appendDHCP shows the address a message is about: the one offered, asked for
// (option 50) or in use, in that order.
func (p *Packet) appendDHCP(dst []byte) []byte {
	m := p.DHCP()
	switch {
	case !m.HasCookie:
		dst = appendNumber(dst, "BOOTP op ", uint64(m.Op()))
	case int(m.Type) < len(dhcpTypes) && m.Type != 0:
		dst = append(dst, "DHCP "...)
		dst = append(dst, dhcpTypes[m.Type]...)
	default:
		dst = appendNumber(dst, "DHCP type ", uint64(m.Type))
	}
	about, server := m.YIAddr(), uint32(0)
	for it := m.Options(); it.Next(); {
		switch {
		case len(it.Data) != 4:
		case it.Code == 50 && about == 0:
			about = binary.BigEndian.Uint32(it.Data)
		case it.Code == 54:
			server = binary.BigEndian.Uint32(it.Data)
		}
	}
	if about == 0 {
		about = m.CIAddr()
	}
	if about != 0 {
		dst = appendIPv4Addr(append(dst, ' '), about)
	}
	if server != 0 {
		dst = appendIPv4Addr(append(dst, " server "...), server)
	}
	if relay := m.GIAddr(); relay != 0 {
		dst = appendIPv4Addr(append(dst, " relay "...), relay)
	}
	dst = appendMAC(append(dst, " for "...), m.CHAddr()[:6])
	return appendHex(dst, " xid 0x", uint64(m.XID()), 8)
}

func appendNumber(dst []byte, before string, n uint64) []byte {
	return strconv.AppendUint(append(dst, before...), n, 10)
}

// appendHex writes n in digits hexadecimal digits.
func appendHex(dst []byte, before string, n uint64, digits int) []byte {
	dst = append(dst, before...)
	for i := digits - 1; i >= 0; i-- {
		dst = append(dst, "0123456789abcdef"[n>>(4*i)&0xf])
	}
	return dst
}

func appendMAC(dst, mac []byte) []byte {
	for i, b := range mac {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = appendHex(dst, "", uint64(b), 2)
	}
	return dst
}

// appendIPv4Addr writes an address given in host byte order.
func appendIPv4Addr(dst []byte, a uint32) []byte {
	return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}).AppendTo(dst)
}
