package binding

import "time"

// Request is what is remembered of a client's message until it is answered: RFC 7513's
// state INIT_BIND.
type Request struct {
	MAC  MAC
	XID  uint32
	VLAN uint16
	// Type is option 53.
	Type uint8
	// Info is the client's own option 82 with which it went on, valid if HasInfo.
	Info    string
	HasInfo bool
	// Rapid says that it asks for an ACK at once (RFC 4039).
	Rapid bool
	// Server is the one that it has chosen; 0 if it names none.
	Server IPv4
	// Address is the one that it asks for, or that the client has; 0 if it names none.
	Address  IPv4
	ClientID string
	// Via is the caller's: by what it went on.
	Via any
	// At is when it was seen, as an instant of CLOCK_BOOTTIME: leases count from there, so
	// that a slow answer does not lengthen them.
	At int64
}

const (
	// AnswerTime is how long an answer may take (RFC 7513, MAX_DHCP_RESPONSE_TIME).
	AnswerTime = int64(120 * time.Second)
	// maxPending bounds the requests of an interface that are remembered: whoever sends
	// more at a time crowds out its own interface's oldest ones, and no other's.
	maxPending = 8192
)

type requestKey struct {
	mac  MAC
	xid  uint32
	vlan uint16
}

// pending are an interface's requests. The ring has them in the order of their coming.
type pending struct {
	byKey map[requestKey]Request
	ring  []requestKey
	next  int
}

func (p *pending) put(r Request) {
	k := requestKey{r.MAC, r.XID, r.VLAN}
	if _, known := p.byKey[k]; !known {
		if p.byKey == nil {
			p.byKey = map[requestKey]Request{}
		}
		if len(p.ring) < maxPending {
			p.ring = append(p.ring, k)
		} else {
			delete(p.byKey, p.ring[p.next])
			p.ring[p.next] = k
			p.next = (p.next + 1) % maxPending
		}
	}
	p.byKey[k] = r
}

func (p *pending) get(k requestKey, now int64) (Request, bool) {
	r, ok := p.byKey[k]
	return r, ok && now-r.At <= AnswerTime
}
