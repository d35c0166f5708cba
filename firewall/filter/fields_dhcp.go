package filter

import (
	"bytes"

	"github.com/postern-fw/postern/proto/dhcp"
)

var dhcpFields = []Field{
	layerField(LayerDHCP, "the DHCP or BOOTP message, on UDP port 67, 68 or 4011"),
	uintAt("dhcp.type", LayerDHCP, 0, 1, "op: 1 BOOTREQUEST, 2 BOOTREPLY; see dhcp.option.dhcp for the message type"),
	manyOf("dhcp.hw.type", TypeUint, 8, "dhcp, offset 1, 1 byte; option 61, offset 0, if it is a hardware address", "hardware type (htype), 1 for Ethernet; the client identifier's as well", getDHCPHWType),
	uintAt("dhcp.hw.len", LayerDHCP, 2, 1, "hardware address length (hlen), 6 for Ethernet"),
	uintAt("dhcp.hops", LayerDHCP, 3, 1, "relay agents passed"),
	uintAt("dhcp.id", LayerDHCP, 4, 4, "transaction (xid)"),
	computed("dhcp.secs", TypeUint, 16, "dhcp, offset 8, 2 bytes, swapped if the first alone is not 0", "seconds elapsed, in the client's byte order as Wireshark guesses it", getDHCPSecs),
	uintAt("dhcp.flags", LayerDHCP, 10, 2, "flags"),
	flagAt("dhcp.flags.bc", LayerDHCP, 10, 2, 15, "the client asks for broadcast answers"),
	placed("dhcp.ip.client", TypeIPv4, "ciaddr", Place{Layer: LayerDHCP, Off: 12, Len: 4}),
	placed("dhcp.ip.your", TypeIPv4, "yiaddr", Place{Layer: LayerDHCP, Off: 16, Len: 4}),
	placed("dhcp.ip.server", TypeIPv4, "siaddr", Place{Layer: LayerDHCP, Off: 20, Len: 4}),
	placed("dhcp.ip.relay", TypeIPv4, "giaddr", Place{Layer: LayerDHCP, Off: 24, Len: 4}),
	manyOf("dhcp.hw.mac_addr", TypeMAC, 0, "dhcp, offset 28, 6 bytes, if hw.type is 1 or 6 and hw.len 6; option 61, offset 1, likewise", "chaddr, and the client identifier if it is one; chaddr alone is dhcp[28:6]", getDHCPMAC),
	computed("dhcp.cookie", TypeIPv4, 0, "dhcp, offset 236, 4 bytes, if 99.130.83.99", "magic cookie: options follow", func(p *Packet) (Value, bool) {
		return Value{Num: dhcp.Cookie}, p.HasDHCP && p.DHCP().HasCookie
	}),

	manyOf("dhcp.option.type", TypeUint, 8, "dhcp, every option's first byte", "code of each option; 0 stands for Pad and for End as well", getOptionType),
	manyOf("dhcp.option.value", TypeBytes, 0, "dhcp, every option's data", "data of each option", anyOption.at),
	option("dhcp.option.subnet_mask", 1, TypeIPv4, 4, "subnet mask"),
	optionList("dhcp.option.router", 3, "routers"),
	optionList("dhcp.option.domain_name_server", 6, "name servers"),
	option("dhcp.option.hostname", 12, TypeString, 0, "client's host name"),
	option("dhcp.option.requested_ip_address", 50, TypeIPv4, 4, "address the client asks for"),
	option("dhcp.option.ip_address_lease_time", 51, TypeUint, 4, "lease time in seconds"),
	firstByte("dhcp.option.option_overload", dhcp.OptOverload, "1 file, 2 sname, 3 both hold options"),
	messageType("dhcp.option.dhcp", "message type: 1 DISCOVER, 2 OFFER, 3 REQUEST, 4 DECLINE, 5 ACK, 6 NAK, 7 RELEASE, 8 INFORM"),
	option("dhcp.option.dhcp_server_id", 54, TypeIPv4, 4, "server identifier"),
	malformedFlag("dhcp.malformed", LayerDHCP, "claims to be DHCP by UDP port 67 or 68 and is malformed, or is a GSO super-frame of port 4011"),
}

func getDHCPSecs(p *Packet) (Value, bool) {
	b := p.Bytes(LayerDHCP)
	if len(b) < 10 {
		return Value{}, false
	}
	n := wireNumber(b[8:10])
	if n > 0xff && n&0xff == 0 {
		n >>= 8
	}
	return Value{Num: n}, true
}

func getDHCPHWType(p *Packet, i int) (Value, bool) {
	if i == 0 || !p.HasDHCP {
		return Value{Num: uint64(byteAt(p.Bytes(LayerDHCP), 1))}, p.HasDHCP
	}
	return clientIDType.at(p, i-1)
}

var clientIDType = &optionValues{optClientID, func(d []byte, n int) (Value, bool) {
	return Value{Num: uint64(byteAt(d, 0))}, n == 0 && hardwareID(d)
}}

func getDHCPMAC(p *Packet, i int) (Value, bool) {
	if !p.HasDHCP {
		return Value{}, false
	}
	b := p.Bytes(LayerDHCP)
	if len(b) >= 34 && (b[1] == 1 || b[1] == 6) && b[2] == 6 {
		if i == 0 {
			return Value{Num: wireNumber(b[28:34])}, true
		}
		i--
	}
	return clientIDMAC.at(p, i)
}

var clientIDMAC = &optionValues{optClientID, func(d []byte, n int) (Value, bool) {
	if n != 0 || !hardwareID(d) || d[0] != 1 && d[0] != 6 {
		return Value{}, false
	}
	return Value{Num: wireNumber(d[1:7])}, true
}}

// byteAt is the byte at off, 0 if there is none.
func byteAt(b []byte, off int) byte {
	if off >= len(b) {
		return 0
	}
	return b[off]
}

// optionValues are the values that get makes of the data of the options of a
// code, 0 for every option. get is given the data and how many of its own values
// to skip, and must tell by false where they end.
type optionValues struct {
	code uint8
	get  func(d []byte, n int) (Value, bool)
}

// optionWalk is how far a packet's options were walked for one field, so that to
// look at every occurrence in turn is one walk and not one for each.
type optionWalk struct {
	of *optionValues
	it dhcp.Options
	in bool // it stands on an option whose n-th value is the field's i-th
	n  int
	i  int
}

// at is the i-th value.
func (o *optionValues) at(p *Packet, i int) (Value, bool) {
	if i < 0 || !p.HasDHCP || o.code != 0 && !p.DHCP().Has(o.code) {
		return Value{}, false
	}
	w := &p.walk
	if w.of != o || i < w.i {
		*w = optionWalk{of: o, it: p.DHCP().Options()}
	}
	for {
		if w.in {
			v, ok := o.get(w.it.Data, w.n)
			if ok && w.i == i {
				return v, true
			}
			if ok {
				w.n, w.i = w.n+1, w.i+1
				continue
			}
		}
		if w.in = w.it.Next(); !w.in {
			return Value{}, false
		}
		w.in, w.n = o.code == 0 || w.it.Code == o.code, 0
	}
}

// inOption is a field in the data of an option; every option of the code can
// hold occurrences.
func inOption(name string, code uint8, t Type, width int, where, doc string, get func(d []byte, n int) (Value, bool)) Field {
	o := &optionValues{code, get}
	f := manyOf(name, t, width, where, doc, o.at)
	f.Option = code
	return f
}

// option is a field that is the whole data of an option, which must be size
// bytes long; size 0 is for text.
func option(name string, code uint8, t Type, size int, doc string) Field {
	width := 0
	if t == TypeUint {
		width = 8 * size
	}
	return inOption(name, code, t, width, optionPlace(code, size), doc, func(d []byte, i int) (Value, bool) {
		if i != 0 || size != 0 && len(d) != size {
			return Value{}, false
		}
		if t == TypeString {
			return Value{Bytes: upToNUL(d)}, true
		}
		return Value{Num: wireNumber(d)}, true
	})
}

// firstByte is a number that is the first byte of an option, as Wireshark reads
// options that should have no other.
func firstByte(name string, code uint8, doc string) Field {
	return inOption(name, code, TypeUint, 8, optionPlace(code, 1), doc, func(d []byte, i int) (Value, bool) {
		return Value{Num: uint64(byteAt(d, 0))}, i == 0 && len(d) > 0
	})
}

// messageType is firstByte of the option that nearly every rule asks for. Of a sound message it is known
// already: each such option says the same.
func messageType(name, doc string) Field {
	f := firstByte(name, dhcp.OptMessageType, doc)
	walk := f.get
	f.get = func(p *Packet, i int) (Value, bool) {
		if !p.HasDHCP || p.DHCP().Malformed != dhcp.CauseNone {
			return walk(p, i)
		}
		return Value{Num: uint64(p.DHCP().Type)}, i >= 0 && i < p.DHCP().Types
	}
	return f
}

// optionList is a list of IPv4 addresses; what is left over is not one.
func optionList(name string, code uint8, doc string) Field {
	return inOption(name, code, TypeIPv4, 0, optionPlace(code, 4)+" each", doc, func(d []byte, i int) (Value, bool) {
		if len(d) < 4*i+4 {
			return Value{}, false
		}
		return Value{Num: wireNumber(d[4*i : 4*i+4])}, true
	})
}

// upToNUL cuts text at its first NUL, as Wireshark does.
func upToNUL(b []byte) []byte {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		return b[:n:n]
	}
	return b
}

// getOptionType gives the codes in the order of the walk, then that of an option
// that is cut, then a 0 if there was a Pad or an End.
func getOptionType(p *Packet, i int) (Value, bool) {
	if _, ok := anyOption.at(p, i); ok {
		return Value{Num: uint64(p.walk.it.Code)}, true
	}
	if i < 0 || !p.HasDHCP {
		return Value{}, false
	}
	it, i := &p.walk.it, i-p.walk.i // the walk is at its end
	if it.Cut != 0 {
		if i == 0 {
			return Value{Num: uint64(it.Cut)}, true
		}
		i--
	}
	return Value{}, i == 0 && it.Blank
}

// anyOption is the data of each option.
var anyOption = &optionValues{0, func(d []byte, n int) (Value, bool) { return Value{Bytes: d}, n == 0 }}
