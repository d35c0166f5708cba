// Package message is what a relay agent does to a DHCPv4 message on its way: giaddr, hops
// and option 82 (RFC 1542, RFC 2131, RFC 3046, RFC 3527, RFC 5107). Bytes in, bytes out: it knows
// nothing of sockets, interfaces, servers and bindings, and does not allocate. Messages
// are decoded by proto/dhcp before they come here.
package message

import (
	"encoding/binary"
	"errors"

	"github.com/postern-fw/postern/proto/dhcp"
)

// Message types (RFC 2132, 9.6).
const (
	Discover = 1 + iota
	Offer
	Request
	Decline
	ACK
	NAK
	Release
	Inform
)

// The operation codes (RFC 2131, 2).
const (
	BootRequest = 1
	BootReply   = 2
)

// Offsets and lengths in the fixed part.
const (
	hopsAt   = 3
	giaddrAt = 24
	optionAt = 240
	// minLen is that of a BOOTP message (RFC 1542, 2.1).
	minLen = 300
	// MaxLen is what fits an Ethernet frame without fragments. Agents do not fragment
	// (RFC 3046, 2.1), so longer ones are dropped.
	MaxLen = 1500 - 20 - 8
)

// Policy is what becomes of a client's message that carries option 82 already.
type Policy uint8

// The policies. The zero value is the safe one: only another relay agent sends option 82.
const (
	Drop    Policy = iota // the message is not relayed
	Keep                  // option 82 goes on as it is, and ours is not added
	Replace               // ours takes its place
	Append                // ours follows in the same option
)

// PolicyNames are their words, by value.
var PolicyNames = []string{Drop: "drop", Keep: "keep", Replace: "replace", Append: "append"}

// String gives the word used in configuration files.
func (p Policy) String() string { return PolicyNames[p] }

// What can be wrong with a message.
var (
	ErrHasInfo  = errors.New("option 82 in a client's message")
	ErrTooLong  = errors.New("too long with option 82")
	ErrNoInfo   = errors.New("no option 82 in a server's answer")
	ErrInfo     = errors.New("option 82 in sname or file, or malformed")
	ErrOverflow = errors.New("more than 255 bytes of option 82")
)

// ToServer appends to dst what goes to the servers for m: one more hop, giaddr if m has
// none, and option 82 with the sub-options info, if there are any.
func ToServer(dst []byte, m *dhcp.Message, giaddr uint32, p Policy, info []byte) (out []byte, err error) {
	at, kept := len(dst), false
	var there []byte // m's own sub-options
	dst, there, err = withoutInfo(dst, m)
	if err != nil {
		return dst[:at], err
	}
	if m.Has(dhcp.OptRelayAgentInfo) {
		switch p {
		case Drop:
			return dst[:at], ErrHasInfo
		case Keep:
			info, kept = nil, true
		case Replace:
			there = nil
		}
	}
	if dst, err = end(dst, at, there, info, kept); err != nil {
		return dst[:at], err
	}
	dst[at+hopsAt]++
	if m.GIAddr() == 0 {
		binary.BigEndian.PutUint32(dst[at+giaddrAt:], giaddr)
	}
	return dst, nil
}

// ToClient appends to dst what goes to the client for m: in place of its option 82 the one that the
// client has sent itself, if it has sent one (RFC 3046, 2.1).
func ToClient(dst []byte, m *dhcp.Message, sent string, has bool) (out []byte, err error) {
	at := len(dst)
	dst, _, err = withoutInfo(dst, m)
	if err == nil {
		dst, err = end(dst, at, nil, []byte(sent), has)
	}
	if err != nil {
		return dst[:at], err
	}
	return dst, nil
}

// withoutInfo appends m up to its End option, without option 82, whose sub-options it
// gives: they point into m.
func withoutInfo(dst []byte, m *dhcp.Message) (out, info []byte, err error) {
	b := m.Bytes()
	if !m.HasCookie || len(b) < optionAt || len(b) > MaxLen {
		return dst, nil, ErrTooLong
	}
	dst = append(dst, b[:optionAt]...)
	found := false
	for rest := b[optionAt:]; len(rest) > 0 && rest[0] != dhcp.OptEnd; {
		if rest[0] == dhcp.OptPad {
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return dst, nil, ErrInfo
		}
		n := 2 + int(rest[1])
		if rest[0] == dhcp.OptRelayAgentInfo {
			info, found = rest[2:n:n], true
		} else {
			dst = append(dst, rest[:n]...)
		}
		rest = rest[n:]
	}
	if m.Has(dhcp.OptRelayAgentInfo) != found {
		return dst, nil, ErrInfo // it stands in sname or file
	}
	return dst, info, nil
}

// end appends option 82, which is the last one (RFC 3046, 2.1), End and padding.
func end(dst []byte, at int, there, info []byte, empty bool) ([]byte, error) {
	n := len(there) + len(info)
	if n > 255 {
		return dst, ErrOverflow
	}
	if n > 0 || empty {
		dst = append(dst, dhcp.OptRelayAgentInfo, byte(n))
		dst = append(append(dst, there...), info...)
	}
	dst = append(dst, dhcp.OptEnd)
	for len(dst) < at+minLen {
		dst = append(dst, 0)
	}
	if len(dst) > at+MaxLen {
		return dst, ErrTooLong
	}
	return dst, nil
}
