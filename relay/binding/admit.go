package binding

import "time"

// port is what is known of an interface beside its bindings.
type port struct {
	pending
	// limit is how many clients may be there; 0 is any number, of whom none is counted.
	limit   int
	clients map[identity]client
	// forgetAt is when the first of those without a binding can be forgotten; 0 is unknown.
	forgetAt int64
	grey     greylist
	// replaced is how many have made room for another since the instant since.
	replaced int
	since    int64
}

// identity is a client to servers: each gets an address of its own.
type identity struct {
	mac MAC
	id  string
}

// client counts a client's bindings, and when it last asked for one.
type client struct {
	held  int
	asked int64
	// rested is when it may send as many at once as any client again (a token bucket, GCRA).
	rested int64
}

// What a client may send: more than any that means it does.
const (
	pace  = int64(time.Second / 5)
	burst = 10
)

// Limit bounds the clients of an interface: those that hold an address there, or
// that have asked for one in the last two minutes, since servers keep what they have
// offered for about so long. 0 is no bound.
func (t *Table) Limit(iface string, clients int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.port(iface)
	p.limit = clients
	if clients == 0 {
		p.clients = nil
		return
	}
	if p.clients != nil {
		return // who has asked stays known
	}
	p.clients = map[identity]client{}
	for _, e := range t.held {
		if t.names[e.iface] == iface {
			c := p.clients[identity{e.mac, e.clientID}]
			c.held++
			p.clients[identity{e.mac, e.clientID}] = c
		}
	}
}

// admit says whether a client may ask. Where there are as many as there may be, and some of them have
// no address, one that asks again takes the place of the oldest of these: a flood of invented
// clients, which ask once each, leaves room for those who come later.
func (p *port) admit(who identity, now int64) error {
	c, known := p.clients[who]
	if !known && len(p.clients) >= p.limit && !p.forget(now) && !p.replace(who.mac, now) {
		return ErrTooMany
	}
	if rested := max(c.rested, now) + pace; rested-now > burst*pace {
		return ErrTooFast
	} else {
		c.rested = rested
	}
	c.asked = now
	p.clients[who] = c
	return nil
}

// forget forgets clients that have got no address, and says whether there is room now.
func (p *port) forget(now int64) bool {
	if now < p.forgetAt {
		return false
	}
	p.forgetAt = now + AnswerTime
	for m, c := range p.clients {
		switch {
		case c.held > 0:
		case now-c.asked > AnswerTime:
			delete(p.clients, m)
		default:
			p.forgetAt = min(p.forgetAt, c.asked+AnswerTime+1)
		}
	}
	if len(p.clients) >= p.limit {
		return false
	}
	p.grey = greylist{}
	return true
}

// replace makes room for a client that asks again. In the time for which servers keep what they have
// offered that happens as often as there may be clients, so that all of them together
// take no more than twice as many addresses.
func (p *port) replace(mac MAC, now int64) bool {
	if !p.grey.again(mac, now) {
		return false
	}
	if now-p.since > AnswerTime {
		p.since, p.replaced = now, 0
	}
	if p.replaced >= p.limit {
		return false
	}
	var oldest identity
	asked := int64(0)
	for who, c := range p.clients {
		if c.held == 0 && (asked == 0 || c.asked < asked) {
			oldest, asked = who, c.asked
		}
	}
	if asked == 0 {
		return false
	}
	delete(p.clients, oldest)
	p.replaced++
	return true
}

const (
	// greyLen bounds a greylist: it tells twice as many hardware addresses apart.
	greyLen = 1 << 16
	// againAfter is the least time between a client's first message and one that it sends
	// because there was no answer.
	againAfter = int64(time.Second / 2)
)

// greylist remembers who has asked, as mail servers do with senders that they do not know. A
// flood fills it: then the older half is forgotten.
type greylist struct{ young, old map[MAC]int64 }

// again says whether a client has asked before.
func (g *greylist) again(mac MAC, now int64) bool {
	at, known := g.young[mac]
	if !known {
		at, known = g.old[mac]
	}
	if known {
		return now-at >= againAfter
	}
	if g.young == nil || len(g.young) >= greyLen {
		g.old, g.young = g.young, map[MAC]int64{}
	}
	g.young[mac] = now
	return false
}

// count keeps the number of a client's bindings.
func (t *Table) count(b *Binding, n int) {
	p := t.ports[b.Interface]
	if p == nil || p.clients == nil {
		return
	}
	who := identity{b.MAC, b.ClientID}
	c := p.clients[who]
	c.held += n
	p.forgetAt = 0
	if p.clients[who] = c; c.held == 0 && c.asked == 0 {
		delete(p.clients, who)
	}
}
