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
	OptRequestedIP    = 50
	OptOverload       = 52
	OptMessageType    = 53
	OptServerID       = 54
	OptClientID       = 61
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
	CauseRepeated            // option 50, 54, 61 or 82 stands more than once
)

// String gives the cause in words.
func (c Cause) String() string {
	return [...]string{"none", "short DHCP fixed part", "DHCP options run past the end", "bad DHCP option overload",
		"no DHCP message type", "DHCP message type is not one byte", "two different DHCP message types", "DHCP option 50, 54, 61 or 82 repeated"}[c]
}

// Message is a decoded message. It points into the bytes given to Decode, which
// the caller owns. What a short message lacks of its fixed part reads as zero.
// The options of a malformed message can be walked as far as they make sense.
type Message struct {
	b []byte
	// seen is a bit for each option code that occurs.
	seen [4]uint64
	// HasCookie is false for plain BOOTP, which has no options here.
	HasCookie bool
	// Type is option 53, the first if they differ; 0 if there is none, which is
	// also a value it can have. Types is how many there are that are one byte long and say that.
	Type  uint8
	Types int
	// Overload is option 52, the first if they differ; 0 if there is none or none
	// that makes sense.
	Overload  uint8
	Malformed Cause
}

// Bytes is the whole message.
func (m *Message) Bytes() []byte { return m.b }

// Has reports whether an option occurs. It costs nothing; a walk does.
func (m *Message) Has(code uint8) bool { return m.seen[code>>6]&(1<<(code&63)) != 0 }

// Decode overwrites m with a view of b. It cannot fail and does not allocate.
func (m *Message) Decode(b []byte) {
	// Field by field: as a whole it would be made elsewhere and copied here before it is there.
	m.b, m.seen, m.HasCookie, m.Type, m.Types, m.Overload, m.Malformed = b, [4]uint64{}, false, 0, 0, 0, CauseNone
	if len(b) < fixedLen {
		m.Malformed = CauseShort
		return
	}
	if len(b) < fixedLen+cookieLen || binary.BigEndian.Uint32(b[fixedLen:]) != Cookie {
		return
	}
	m.HasCookie = true
	m.scan()
}

// scan goes over the options.
func (m *Message) scan() {
	if !m.scanPlain(m.b[fixedLen+cookieLen:]) {
		m.scanFields()
	}
}

// scanFields walks the options field, and then file and sname if it says so: what
// stands in them cannot decide whether they are read.
func (m *Message) scanFields() {
	ended := m.scanField(m.b[fixedLen+cookieLen:], true)
	over := m.Overload
	if over&1 != 0 {
		ended = m.scanField(m.b[108:fixedLen], false) && ended
	}
	if over&2 != 0 {
		ended = m.scanField(m.b[44:108], false) && ended
	}
	if !ended {
		m.cause(CausePastEnd)
	} else if !m.Has(OptMessageType) {
		m.cause(CauseNoMessageType)
	}
}

// The options that scanPlain does more with than note that they are there.
const (
	plainly = iota
	isPad
	isEnd
	isType
	isOdd
)

var special = [256]uint8{OptPad: isPad, OptEnd: isEnd, OptMessageType: isType, OptOverload: isOdd}

// scanPlain is the whole of scan for nearly all messages: sound ones without overload and with one message type. Of any
// other it reports false, and leaves m alone.
func (m *Message) scanPlain(b []byte) bool {
	var seen, twice [4]uint64
	var low, lowTwice uint64 // those of the codes below 64, as most are, in registers
	var typ, types uint8
	for i := uint(0); i < uint(len(b)); {
		code := b[i]
		if kind := special[code]; kind != plainly {
			switch {
			case kind == isPad:
				i++
				continue
			case kind == isEnd:
				seen[0], twice[0] = low, lowTwice
				return m.setPlain(&seen, &twice, typ, types)
			case kind == isOdd || i+2 >= uint(len(b)) || b[i+1] != 1:
				return false
			}
			typ, types = b[i+2], types+1
		}
		if i+1 >= uint(len(b)) {
			return false
		}
		n := uint(b[i+1]) + 2
		bit := uint64(1) << (code & 63)
		if code < 64 {
			lowTwice |= low & bit
			low |= bit
		} else {
			twice[code>>6] |= seen[code>>6] & bit
			seen[code>>6] |= bit
		}
		i += n
	}
	return false
}

// setPlain is false if an option stands twice that must not.
func (m *Message) setPlain(seen, twice *[4]uint64, typ, types uint8) bool {
	if types != 1 || twice[0]&noted != 0 || twice[OptRelayAgentInfo>>6]&(1<<(OptRelayAgentInfo&63)) != 0 {
		return false
	}
	m.seen, m.Type, m.Types = *seen, typ, 1
	return true
}

// scanField goes once over a field, as Options does, and reports whether it has an End.
func (m *Message) scanField(b []byte, first bool) bool {
	for len(b) > 0 {
		code := b[0]
		if code == OptPad {
			b = b[1:]
			continue
		}
		if code == OptEnd {
			return true
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return false
		}
		n := 2 + int(b[1])
		if code < 64 && noted&(1<<code) != 0 || code == OptRelayAgentInfo {
			m.note(code, b[2:n], first)
		}
		m.seen[code>>6] |= 1 << (code & 63)
		b = b[n:]
	}
	return false
}

// noted are the options below 64 that note looks at.
const noted = 1<<OptOverload | 1<<OptMessageType | 1<<OptRequestedIP | 1<<OptServerID | 1<<OptClientID

// note takes down an option; first is true in the options field.
func (m *Message) note(code uint8, data []byte, first bool) {
	switch code {
	case OptOverload:
		m.noteOverload(data, first)
	case OptMessageType:
		if len(data) != 1 {
			m.cause(CauseTypeLength)
		} else if m.Types > 0 && m.Type != data[0] {
			m.cause(CauseTwoTypes)
		} else {
			m.Type = data[0]
			m.Types++
		}
	default:
		if Once(code) && m.Has(code) {
			m.cause(CauseRepeated)
		}
	}
}

// Once reports whether an option may stand only once in a message. No honest
// sender splits these for their length (RFC 3396). What is in one of two, or
// divided between them, would be hidden from whoever looks for the other, and
// receivers differ in which they believe.
func Once(code uint8) bool {
	switch code {
	case OptRequestedIP, OptServerID, OptClientID, OptRelayAgentInfo:
		return true
	}
	return false
}

func (m *Message) noteOverload(data []byte, first bool) {
	if !first || len(data) != 1 || data[0] < 1 || data[0] > 3 || m.Overload != 0 && m.Overload != data[0] {
		m.cause(CauseOverload)
	}
	// Wireshark reads the first byte of a long one; so the fields agree with it.
	if first && m.Overload == 0 && len(data) > 0 && data[0] <= 3 {
		m.Overload = data[0]
	}
}

// cause keeps the first.
func (m *Message) cause(c Cause) {
	if m.Malformed == CauseNone {
		m.Malformed = c
	}
}

// Op, HType, HLen and Hops are the first four bytes (RFC 2131, 2).
func (m *Message) Op() uint8    { return m.byteAt(0) }
func (m *Message) HType() uint8 { return m.byteAt(1) }
func (m *Message) HLen() uint8  { return m.byteAt(2) }
func (m *Message) Hops() uint8  { return m.byteAt(3) }

// XID, Secs and Flags are in host byte order.
func (m *Message) XID() uint32   { return m.uint32At(4) }
func (m *Message) Secs() uint16  { return m.uint16At(8) }
func (m *Message) Flags() uint16 { return m.uint16At(10) }

// CIAddr, YIAddr, SIAddr and GIAddr are IPv4 addresses in host byte order.
func (m *Message) CIAddr() uint32 { return m.uint32At(12) }
func (m *Message) YIAddr() uint32 { return m.uint32At(16) }
func (m *Message) SIAddr() uint32 { return m.uint32At(20) }
func (m *Message) GIAddr() uint32 { return m.uint32At(24) }

// CHAddr is the whole 16-byte field, whatever HLen says of it; nil if the message
// ends before it does.
func (m *Message) CHAddr() []byte {
	if len(m.b) < 44 {
		return nil
	}
	return m.b[28:44:44]
}

func (m *Message) byteAt(i int) uint8 {
	if len(m.b) <= i {
		return 0
	}
	return m.b[i]
}

func (m *Message) uint16At(i int) uint16 {
	if len(m.b) < i+2 {
		return 0
	}
	return binary.BigEndian.Uint16(m.b[i:])
}

func (m *Message) uint32At(i int) uint32 {
	if len(m.b) < i+4 {
		return 0
	}
	return binary.BigEndian.Uint32(m.b[i:])
}

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
