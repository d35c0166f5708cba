package relay

import "sync/atomic"

// Reason is why a message was not relayed.
type Reason uint8

// The reasons. Those from Chaddr to NotHeld are what an honest client does not do.
const (
	Relayed Reason = iota
	Frame
	Fragment
	Checksum
	Malformed
	NotDHCP
	Chaddr
	GIAddr
	HasInfo
	VLAN
	Hops
	TypeOfServer
	TooManyClients
	TooFast
	NotHeld
	TooLong
	UnknownServer
	UnknownAgent
	NoInfo
	ForeignCircuit
	ForeignRemote
	TypeOfClient
	NoRequest
	Taken
	NotChosen
	NoLeaseTime
	Busy
	NotStored
	Refused
	NotSent
	reasons
)

var reasonNames = [reasons]string{
	Relayed:        "relayed",
	Frame:          "malformed-frame",
	Fragment:       "fragment",
	Checksum:       "bad-checksum",
	Malformed:      "malformed-dhcp",
	NotDHCP:        "not-dhcp",
	Chaddr:         "chaddr-not-the-senders",
	GIAddr:         "giaddr-from-a-client",
	HasInfo:        "option-82-from-a-client",
	VLAN:           "vlan-not-configured",
	Hops:           "too-many-hops",
	TypeOfServer:   "server-message-from-a-client",
	TooManyClients: "too-many-clients",
	TooFast:        "client-asks-too-often",
	NotHeld:        "not-the-clients-lease",
	TooLong:        "too-long",
	UnknownServer:  "unknown-server",
	UnknownAgent:   "unknown-giaddr",
	NoInfo:         "no-option-82",
	ForeignCircuit: "foreign-circuit",
	ForeignRemote:  "foreign-remote-id",
	TypeOfClient:   "client-message-from-a-server",
	NoRequest:      "no-request",
	Taken:          "address-of-a-static-binding",
	NotChosen:      "server-not-chosen",
	NoLeaseTime:    "no-lease-time",
	Busy:           "database-busy",
	NotStored:      "binding-not-stored",
	Refused:        "refused-by-policy",
	NotSent:        "not-sent",
}

// String is the name that counters and events have it by.
func (r Reason) String() string { return reasonNames[r] }

// violation tells what somebody has forged from what just went wrong.
func (r Reason) violation() bool {
	return r >= Chaddr && r <= NotHeld || r >= UnknownServer && r <= Taken
}

// messageTypes are option 53's values in words.
var messageTypes = [...]string{1: "discover", 2: "offer", 3: "request", 4: "decline", 5: "ack", 6: "nak", 7: "release", 8: "inform"}

// counters are one interface's or one server's.
type counters struct {
	reasons [reasons]atomic.Uint64
	types   [len(messageTypes)]atomic.Uint64
}

func (c *counters) relayed(typ uint8) {
	c.reasons[Relayed].Add(1)
	c.types[typ].Add(1)
}

// Count is a counter.
type Count struct {
	// Interface or Server is where it counts.
	Interface string `json:"interface,omitempty"`
	Server    string `json:"server,omitempty"`
	// Type is of messages relayed, Reason why others were dropped.
	Type   string `json:"type,omitempty"`
	Reason string `json:"reason,omitempty"`
	N      uint64 `json:"n"`
}

func (c *counters) list(of Count) (out []Count) {
	for typ, name := range messageTypes {
		if n := c.types[typ].Load(); n > 0 {
			of.Type, of.N = name, n
			out = append(out, of)
		}
	}
	of.Type = ""
	for r := Relayed + 1; r < reasons; r++ {
		if n := c.reasons[r].Load(); n > 0 {
			of.Reason, of.N = r.String(), n
			out = append(out, of)
		}
	}
	return out
}
