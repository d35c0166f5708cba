package filter

import (
	"fmt"

	"github.com/postern-fw/postern/proto/dhcp"
)

const optClientID = 61

// The client identifier (RFC 2132, 9.14) under the names that Wireshark has for
// its forms: a hardware address is dhcp.hw.type and dhcp.hw.mac_addr, text is
// .undef, and the rest are the parts of a DUID (RFC 4361, 6.1). Any identifier at
// all is an occurrence of dhcp.option.value.
var clientIDFields = []Field{
	clientID("dhcp.client_id.type", TypeUint, 8, 0, 1, "0: the identifier is text", textID),
	clientID("dhcp.client_id.undef", TypeString, 0, 1, -1, "the identifier, where it is text", textID),
	clientID("dhcp.client_id.duid_type", TypeUint, 16, 5, 2, "DUID type: 1 LLT, 2 EN, 3 LL, 4 UUID", func(d []byte) bool { return duid(d, 0) }),
	clientID("dhcp.client_id.duid_llt_hw_type", TypeUint, 16, 7, 2, "hardware type of a DUID-LLT", func(d []byte) bool { return duid(d, 1) }),
	clientID("dhcp.client_id.time", TypeUint, 32, 9, 4, "time of a DUID-LLT", func(d []byte) bool { return duid(d, 1) }),
	clientID("dhcp.client_id.enterprise_num", TypeUint, 32, 7, 4, "enterprise number of a DUID-EN", func(d []byte) bool { return duid(d, 2) }),
	clientID("dhcp.client_id", TypeBytes, 0, 11, -1, "identifier of a DUID-EN", func(d []byte) bool { return duid(d, 2) }),
	clientID("dhcp.client_id.duid_ll_hw_type", TypeUint, 16, 7, 2, "hardware type of a DUID-LL", func(d []byte) bool { return duid(d, 3) }),
}

// hardwareID tells an identifier that is a hardware address.
func hardwareID(d []byte) bool { return len(d) == 7 && d[0] > 0 && d[0] < 48 }

// textID tells one that is neither that, nor a UUID, nor a DUID.
func textID(d []byte) bool { return len(d) > 1 && d[0] == 0 && len(d) != 17 }

// duid tells one that holds a DUID of a type, 0 for any.
func duid(d []byte, typ uint64) bool {
	return len(d) >= 7 && d[0] == 255 && (typ == 0 || wireNumber(d[5:7]) == typ) && !hardwareID(d)
}

// clientID is a part of an identifier that is of the right form: n bytes at off,
// or all from there on where n is negative.
func clientID(name string, t Type, width, off, n int, doc string, form func([]byte) bool) Field {
	where := fmt.Sprintf("dhcp, option 61, offset %d, %d bytes", off, n)
	if n < 0 {
		where = fmt.Sprintf("dhcp, option 61, from offset %d", off)
	}
	return inOption(name, optClientID, t, width, where, doc, func(d []byte, i int) (Value, bool) {
		if i != 0 || !form(d) || len(d) < off+max(n, 0) {
			return Value{}, false
		}
		switch {
		case t == TypeString:
			return Value{Bytes: upToNUL(d[off:])}, true
		case n < 0:
			return Value{Bytes: d[off:]}, true
		}
		return Value{Num: wireNumber(d[off : off+n])}, true
	})
}

// Option 82 (RFC 3046), each occurrence by itself: a sub-option that RFC 3396
// splits over two is seen in neither, but dhcp.option.type sees both.
var agentFields = []Field{
	inOption("dhcp.option.agent_information_option.suboption", dhcp.OptRelayAgentInfo, TypeUint, 8, "dhcp, option 82, every sub-option's first byte", "code of each sub-option of option 82", getSuboption),
	suboption("agent_circuit_id", 1, TypeBytes, "agent circuit ID"),
	suboption("agent_remote_id", 2, TypeBytes, "agent remote ID"),
	suboption("link_selection", 5, TypeIPv4, "link selection (RFC 3527)"),
	suboption("subscriber_id", 6, TypeString, "subscriber ID (RFC 3993)"),
	suboption("server_id_override", 11, TypeIPv4, "server identifier override (RFC 5107)"),
	suboption("relay_agent_id", 12, TypeBytes, "relay agent identifier (RFC 6925)"),
}

func suboption(name string, code uint8, t Type, doc string) Field {
	where := fmt.Sprintf("dhcp, option 82, sub-option %d", code)
	if t == TypeIPv4 {
		where += ", 4 bytes"
	}
	return inOption("dhcp.option.agent_information_option."+name, dhcp.OptRelayAgentInfo, t, 0, where, doc, func(d []byte, i int) (Value, bool) {
		for it := dhcp.NewSuboptions(d); it.Next(); {
			if it.Code != code || t == TypeIPv4 && len(it.Data) != 4 {
				continue
			}
			if i > 0 {
				i--
				continue
			}
			switch t {
			case TypeIPv4:
				return Value{Num: wireNumber(it.Data)}, true
			case TypeString:
				return Value{Bytes: upToNUL(it.Data)}, true
			}
			return Value{Bytes: it.Data}, true
		}
		return Value{}, false
	})
}

// getSuboption gives the codes, that of a sub-option that is cut last.
func getSuboption(d []byte, i int) (Value, bool) {
	it := dhcp.NewSuboptions(d)
	for ; it.Next(); i-- {
		if i == 0 {
			return Value{Num: uint64(it.Code)}, true
		}
	}
	return Value{Num: uint64(it.Code)}, i == 0 && it.Cut
}

// optionPlace says in words where an option's data is.
func optionPlace(code uint8, size int) string {
	switch size {
	case 0:
		return fmt.Sprintf("dhcp, option %d", code)
	case 1:
		return fmt.Sprintf("dhcp, option %d, 1 byte", code)
	}
	return fmt.Sprintf("dhcp, option %d, %d bytes", code, size)
}
