// Package dhcp is a bounded view of a DHCPv4 message (RFC 2131): the fixed part,
// and the walk over its options with overload (RFC 2132, 9.3), joining (RFC
// 3396) and the sub-options of option 82 (RFC 3046). It is given a UDP payload
// and knows nothing of ports, frames or rules.
package dhcp

import "encoding/binary"

// The lengths of a message's parts, in bytes.
const (
	fixedLen  = 236
	cookieLen = 4
)

// Cookie is the magic cookie that precedes the options (RFC 2131, 3).
const Cookie = 0x63825363

// Option codes with a meaning to the walk (RFC 2132).
const (
	OptPad            = 0
	OptOverload       = 52
	OptMessageType    = 53
	OptRelayAgentInfo = 82
	OptEnd            = 255
)

// Cause says why a message is malformed. The zero value means that it is not.
type Cause uint8

// The causes.
const (
	CauseNone          Cause = iota
	CauseShort               // shorter than the 236 bytes of the fixed part
	CausePastEnd             // an option runs past its field, or the field has no End option
	CauseOverload            // option 52 is not one byte of 1 to 3, differs when repeated, or stands inside file or sname
	CauseNoMessageType       // cookie, but no option 53
	CauseTypeLength          // option 53 is not one byte long
	CauseTwoTypes            // option 53 says two different things
)

// String gives the cause in words.
func (c Cause) String() string {
	return [...]string{"none", "short DHCP fixed part", "DHCP options run past the end", "bad DHCP option overload",
		"no DHCP message type", "DHCP message type is not one byte", "two different DHCP message types"}[c]
}

// Message is a decoded message. It points into the bytes given to Decode, which
// the caller owns. The methods that read the fixed part panic where there is
// none: look at Malformed for CauseShort first.
type Message struct {
	b []byte
	// HasCookie is false for plain BOOTP, which has no options here.
	HasCookie bool
	// Type is option 53; 0 if there is none, which is also a value it can have.
	Type uint8
	// Overload is option 52, 0 if there is none.
	Overload  uint8
	Malformed Cause
}

// Decode overwrites m with a view of b. It cannot fail and does not allocate.
func (m *Message) Decode(b []byte) {
	*m = Message{b: b}
	if len(b) < fixedLen {
		m.Malformed = CauseShort
		return
	}
	if len(b) < fixedLen+cookieLen || binary.BigEndian.Uint32(b[fixedLen:]) != Cookie {
		return
	}
	m.HasCookie = true
	if m.Malformed = m.readOverload(); m.Malformed == CauseNone {
		m.Malformed = m.readType()
	}
}

// readOverload looks at the options field alone, so that what stands in file
// and sname cannot decide whether they are read.
func (m *Message) readOverload() Cause {
	it := m.Options()
	for it.Next() {
		if it.Code != OptOverload {
			continue
		}
		if len(it.Data) != 1 || it.Data[0] < 1 || it.Data[0] > 3 || m.Overload != 0 && m.Overload != it.Data[0] {
			return CauseOverload
		}
		m.Overload = it.Data[0]
	}
	return it.Malformed
}

func (m *Message) readType() Cause {
	it, seen := m.Options(), false
	for it.Next() {
		switch it.Code {
		case OptOverload:
			if it.field != 0 {
				return CauseOverload
			}
		case OptMessageType:
			if len(it.Data) != 1 {
				return CauseTypeLength
			}
			if seen && m.Type != it.Data[0] {
				return CauseTwoTypes
			}
			m.Type, seen = it.Data[0], true
		}
	}
	if it.Malformed == CauseNone && !seen {
		return CauseNoMessageType
	}
	return it.Malformed
}

// Op, HType, HLen and Hops are the first four bytes (RFC 2131, 2).
func (m *Message) Op() uint8    { return m.b[0] }
func (m *Message) HType() uint8 { return m.b[1] }
func (m *Message) HLen() uint8  { return m.b[2] }
func (m *Message) Hops() uint8  { return m.b[3] }

// XID, Secs and Flags are in host byte order.
func (m *Message) XID() uint32   { return binary.BigEndian.Uint32(m.b[4:]) }
func (m *Message) Secs() uint16  { return binary.BigEndian.Uint16(m.b[8:]) }
func (m *Message) Flags() uint16 { return binary.BigEndian.Uint16(m.b[10:]) }

// CIAddr, YIAddr, SIAddr and GIAddr are IPv4 addresses in host byte order.
func (m *Message) CIAddr() uint32 { return binary.BigEndian.Uint32(m.b[12:]) }
func (m *Message) YIAddr() uint32 { return binary.BigEndian.Uint32(m.b[16:]) }
func (m *Message) SIAddr() uint32 { return binary.BigEndian.Uint32(m.b[20:]) }
func (m *Message) GIAddr() uint32 { return binary.BigEndian.Uint32(m.b[24:]) }

// CHAddr is the whole 16-byte field, whatever HLen says of it.
func (m *Message) CHAddr() []byte { return m.b[28:44:44] }

// Join appends to dst the data of every occurrence of an option, in the order
// of the walk: the option's value by RFC 3396.
func (m *Message) Join(dst []byte, code uint8) []byte {
	it := m.Options()
	for it.Next() {
		if it.Code == code {
			dst = append(dst, it.Data...)
		}
	}
	return dst
}
