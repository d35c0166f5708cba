package binding

import (
	"errors"
	"sync"
)

// Why a message is not as the bindings want it.
var (
	// ErrNoRequest: an answer to what nobody has asked.
	ErrNoRequest = errors.New("answer without a request")
	// ErrNotHeld: a RELEASE or DECLINE of what the client does not hold.
	ErrNotHeld = errors.New("not the client's own lease")
	// ErrTooMany: an interface has more clients than it may have.
	ErrTooMany = errors.New("too many clients")
	// ErrTooFast: a client asks more often than any that means it.
	ErrTooFast = errors.New("a client asks too often")
)

// Change is a binding to be kept, or, if Gone, one to be forgotten.
type Change struct {
	Binding
	Gone bool
}

// Table is the bindings and the requests that may lead to some. It is safe for use by many
// goroutines. Its changes take effect by Apply, which is to be called when they are on disk.
type Table struct {
	mu    sync.Mutex
	held  map[IPv4]entry
	names []string // interfaces, by entry.iface
	index map[string]uint32
	ports map[string]*port
}

// entry is a Binding as small as it gets: there may be millions.
type entry struct {
	mac              MAC
	vlan             uint16
	iface            uint32
	server           IPv4
	clientID         string
	expiry, deadline int64
	static           bool
}

// NewTable is an empty one.
func NewTable() *Table {
	return &Table{held: map[IPv4]entry{}, index: map[string]uint32{}, ports: map[string]*port{}}
}

func (t *Table) port(iface string) *port {
	p := t.ports[iface]
	if p == nil {
		p = &port{}
		t.ports[iface] = p
	}
	return p
}

// Asked notes a client's DISCOVER, REQUEST or INFORM. It fails with ErrTooMany or ErrTooFast.
func (t *Table) Asked(iface string, r Request) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.port(iface)
	if p.limit > 0 {
		if err := p.admit(identity{r.MAC, r.ClientID}, r.At); err != nil {
			return err
		}
	}
	p.put(r)
	return nil
}

// Answered finds the request that an answer belongs to. It fails with ErrNoRequest.
func (t *Table) Answered(at Place, mac MAC, xid uint32, now int64) (Request, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.port(at.Interface).get(requestKey{mac, xid, at.VLAN}, now)
	if !ok {
		return r, ErrNoRequest
	}
	return r, nil
}

// Released finds the binding that a RELEASE or DECLINE ends. It fails with ErrNotHeld if the
// address is not held by that client at that place, under that client identifier.
func (t *Table) Released(at Place, mac MAC, clientID string, ip IPv4) (Change, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, ok := t.get(ip)
	if !ok || b.MAC != mac || b.Place != at || b.ClientID != clientID || b.Static {
		return Change{}, ErrNotHeld
	}
	return Change{Binding: b, Gone: true}, nil
}

// Refused finds the binding that a NAK ends, if there is one.
func (t *Table) Refused(at Place, r Request) (Change, bool) {
	if r.Type != requestType || r.Address == 0 {
		return Change{}, false
	}
	c, err := t.Released(at, r.MAC, r.ClientID, r.Address)
	return c, err == nil
}

const requestType = 3 // REQUEST

// Apply makes changes, in order, and tells of each binding that another has taken the place
// of, or that is gone.
func (t *Table) Apply(changes []Change, ended func(Binding)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range changes {
		c := &changes[i]
		old, was := t.get(c.IP)
		switch {
		case was && old.Static && !c.Static:
			continue
		case c.Gone && was && old.MAC == c.MAC && old.Place == c.Place:
			t.forget(&old)
			ended(old)
		case c.Gone:
		default:
			if was {
				t.forget(&old)
				if old.MAC != c.MAC || old.Place != c.Place {
					ended(old)
				}
			}
			t.put(&c.Binding)
		}
	}
}

func (t *Table) put(b *Binding) {
	i, ok := t.index[b.Interface]
	if !ok {
		i = uint32(len(t.names))
		t.names, t.index[b.Interface] = append(t.names, b.Interface), i
	}
	t.held[b.IP] = entry{b.MAC, b.VLAN, i, b.Server, b.ClientID, b.Expiry, b.Deadline, b.Static}
	t.count(b, 1)
}

func (t *Table) forget(b *Binding) {
	delete(t.held, b.IP)
	t.count(b, -1)
}

func (t *Table) get(ip IPv4) (Binding, bool) {
	e, ok := t.held[ip]
	if !ok {
		return Binding{}, false
	}
	return e.binding(ip, t.names), true
}

func (e *entry) binding(ip IPv4, names []string) Binding {
	return Binding{ip, e.mac, Place{names[e.iface], e.vlan}, e.clientID, e.server, e.expiry, e.deadline, e.static}
}

// Get is the binding of an address.
func (t *Table) Get(ip IPv4) (Binding, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(ip)
}

// Len is the number of bindings.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.held)
}

// All is every binding, in no order.
func (t *Table) All() []Binding {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Binding, 0, len(t.held))
	for ip, e := range t.held {
		out = append(out, e.binding(ip, t.names))
	}
	return out
}

// Expired are at most n bindings whose lease has ended.
func (t *Table) Expired(now int64, n int) (out []Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ip, e := range t.held {
		if e.deadline != 0 && e.deadline <= now {
			if out = append(out, Change{e.binding(ip, t.names), true}); len(out) == n {
				break
			}
		}
	}
	return out
}
