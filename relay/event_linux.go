package relay

import (
	"sync"
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

// Event is a message that an honest client or server would not have sent.
type Event struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
	// Interface is where it came from, or where the answer would have gone; Server who
	// sent it, if it came from there.
	Interface string        `json:"interface,omitempty"`
	VLAN      uint16        `json:"vlan,omitempty"`
	Server    *binding.IPv4 `json:"server,omitempty"`
	// Sender is the frame's source, MAC chaddr, Type option 53.
	Sender *binding.MAC `json:"sender,omitempty"`
	MAC    binding.MAC  `json:"mac"`
	Type   uint8        `json:"type,omitempty"`
	XID    uint32       `json:"xid"`
	// Missed are the events before that were not told, because there were too many.
	Missed uint64 `json:"missed,omitempty"`
}

// limiter lets a thousand things a second happen.
type limiter struct {
	mu     sync.Mutex
	second int64
	n      int
	missed uint64
}

func (l *limiter) allow() bool {
	ok, _ := l.count()
	return ok
}

// count tells how many did not happen since the last one that did.
func (l *limiter) count() (ok bool, missed uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now().Unix(); now != l.second {
		l.second, l.n = now, 0
	}
	if l.n++; l.n > 1000 {
		l.missed++
		return false, 0
	}
	missed, l.missed = l.missed, 0
	return true, missed
}

// drop counts a message that goes no further, and tells of it if it was forged.
func (a *Agent) drop(c *counters, r Reason, iface string, l *letter, server *uint32) {
	c.reasons[r].Add(1)
	if a.event == nil || !r.violation() {
		return
	}
	ok, missed := a.events.count()
	if !ok {
		return
	}
	e := Event{Time: time.Now(), Reason: r.String(), Interface: iface, MAC: l.mac, Type: l.m.Type, XID: l.m.XID(), Missed: missed}
	if server != nil {
		ip := binding.IPv4(*server)
		e.Server = &ip
	} else {
		mac := binding.MAC(l.EthSrc)
		e.Sender = &mac
	}
	if l.origin.Tagged {
		e.VLAN = l.origin.VLAN
	}
	a.event(&e)
}
