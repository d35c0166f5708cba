package binding

import (
	"errors"
	"testing"
	"time"
)

var (
	alice, bob = MAC{2, 0, 0, 0, 0, 1}, MAC{2, 0, 0, 0, 0, 2}
	port1      = Place{Interface: "veth1"}
	port2      = Place{Interface: "veth2"}
)

const second = int64(time.Second)

func held(ip IPv4, mac MAC, at Place) Change {
	return Change{Binding: Binding{IP: ip, MAC: mac, Place: at, Deadline: 100 * second, Expiry: 1}}
}

// apply makes changes and gives the bindings that ended.
func apply(t *Table, changes ...Change) (ended []Binding) {
	t.Apply(changes, func(b Binding) { ended = append(ended, b) })
	return ended
}

func TestAnswered(t *testing.T) {
	table := NewTable()
	if err := table.Asked("veth1", Request{MAC: alice, XID: 7, Type: 3, At: second}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		at   Place
		mac  MAC
		xid  uint32
		now  int64
		err  error
	}{
		{"in time", port1, alice, 7, 2 * second, nil},
		{"as late as may be", port1, alice, 7, second + AnswerTime, nil},
		{"too late", port1, alice, 7, second + AnswerTime + 1, ErrNoRequest},
		{"at another port", port2, alice, 7, second, ErrNoRequest},
		{"on another VLAN", Place{"veth1", 5}, alice, 7, second, ErrNoRequest},
		{"another client", port1, bob, 7, second, ErrNoRequest},
		{"another transaction", port1, alice, 8, second, ErrNoRequest},
	} {
		if _, err := table.Answered(tt.at, tt.mac, tt.xid, tt.now); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

// Who floods crowds out the requests of its own port, and no other's.
func TestPendingIsBounded(t *testing.T) {
	table := NewTable()
	ask := func(iface string, xid uint32) {
		if err := table.Asked(iface, Request{MAC: alice, XID: xid, At: 1}); err != nil {
			t.Fatal(err)
		}
	}
	ask("veth1", 0)
	ask("veth2", 0)
	for i := range uint32(maxPending) {
		ask("veth1", i+1)
	}
	if n := len(table.ports["veth1"].byKey); n != maxPending {
		t.Errorf("%d requests are remembered", n)
	}
	if _, err := table.Answered(port1, alice, 0, 1); !errors.Is(err, ErrNoRequest) {
		t.Error("the oldest is still there")
	}
	if _, err := table.Answered(port2, alice, 0, 1); err != nil {
		t.Error("the other port's is gone")
	}
}

func TestApply(t *testing.T) {
	table := NewTable()
	if ended := apply(table, held(1, alice, port1)); ended != nil {
		t.Errorf("ended %v", ended)
	}
	if ended := apply(table, held(1, alice, port1)); ended != nil {
		t.Errorf("renewed, and ended %v", ended)
	}
	if ended := apply(table, held(1, bob, port2)); len(ended) != 1 || ended[0].MAC != alice {
		t.Errorf("given to another, and ended %v", ended)
	}
	gone := held(1, alice, port1)
	gone.Gone = true
	if ended := apply(table, gone); ended != nil || table.Len() != 1 {
		t.Errorf("what is over ended %v", ended)
	}
	gone = held(1, bob, port2)
	gone.Gone = true
	if ended := apply(table, gone); len(ended) != 1 || table.Len() != 0 {
		t.Errorf("released, and ended %v", ended)
	}
	static := held(2, alice, port1)
	static.Static = true
	apply(table, static)
	if ended := apply(table, held(2, bob, port2)); ended != nil {
		t.Errorf("a static binding ended: %v", ended)
	}
}

func TestReleased(t *testing.T) {
	table := NewTable()
	c := held(1, alice, port1)
	c.ClientID = "a"
	apply(table, c)
	for _, tt := range []struct {
		name string
		at   Place
		mac  MAC
		id   string
		ip   IPv4
		err  error
	}{
		{"its own", port1, alice, "a", 1, nil},
		{"another client", port1, bob, "a", 1, ErrNotHeld},
		{"from another port", port2, alice, "a", 1, ErrNotHeld},
		{"another client identifier", port1, alice, "b", 1, ErrNotHeld},
		{"another address", port1, alice, "a", 2, ErrNotHeld},
	} {
		if _, err := table.Released(tt.at, tt.mac, tt.id, tt.ip); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestLimit(t *testing.T) {
	table := NewTable()
	apply(table, held(1, alice, port1))
	table.Limit("veth1", 2)
	ask := func(last byte, now int64) error {
		return table.Asked("veth1", Request{MAC: MAC{2, 0, 0, 0, 0, last}, XID: uint32(last), At: now})
	}
	for _, tt := range []struct {
		name string
		last byte
		now  int64
		err  error
	}{
		{"there is room for one more", 2, second, nil},
		{"and for no third", 3, second, ErrTooMany},
		{"who has an address goes on", 1, second, nil},
		{"who was there goes on", 2, second, nil},
		{"who got none is forgotten after a while", 3, second + AnswerTime + 1, nil},
		{"who has one is not", 4, second + 2*AnswerTime, ErrTooMany},
	} {
		if err := ask(tt.last, tt.now); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

// Two client identifiers of one hardware address are two clients.
func TestLimitByIdentifier(t *testing.T) {
	table := NewTable()
	table.Limit("veth1", 1)
	if err := table.Asked("veth1", Request{MAC: alice, At: 1}); err != nil {
		t.Error(err)
	}
	if err := table.Asked("veth1", Request{MAC: alice, XID: 1, ClientID: "other", At: 1}); !errors.Is(err, ErrTooMany) {
		t.Errorf("another identifier: %v", err)
	}
}

func TestRefused(t *testing.T) {
	table := NewTable()
	apply(table, held(1, alice, port1))
	for _, tt := range []struct {
		name string
		r    Request
		ends bool
	}{
		{"the REQUEST of what it has", Request{MAC: alice, Type: 3, Address: 1}, true},
		{"the REQUEST of what another has", Request{MAC: bob, Type: 3, Address: 1}, false},
		{"a DISCOVER", Request{MAC: alice, Type: 1, Address: 1}, false},
	} {
		if _, ends := table.Refused(port1, tt.r); ends != tt.ends {
			t.Errorf("NAK for %s ends the binding: %t", tt.name, ends)
		}
	}
}

func TestExpired(t *testing.T) {
	table := NewTable()
	never := held(2, alice, port1)
	never.Deadline = 0
	apply(table, held(1, alice, port1), never)
	if list := table.Expired(100*second-1, 10); list != nil {
		t.Errorf("%v", list)
	}
	if list := table.Expired(100*second, 10); len(list) != 1 || list[0].IP != 1 || !list[0].Gone {
		t.Errorf("%v", list)
	}
}

// A flood of invented clients, which ask once each, leaves room for those who ask again; all together
// they cost twice the addresses of the limit, and no more.
func TestFlood(t *testing.T) {
	const limit = 4
	table := NewTable()
	table.Limit("veth1", limit)
	taken := 0
	ask := func(mac MAC, now int64) bool {
		err := table.Asked("veth1", Request{MAC: mac, At: now})
		return err == nil
	}
	flood := func(from, to int64) {
		for now := from; now < to; now += second / 10_000 {
			if ask(MAC{6, 0, byte(now >> 40), byte(now >> 32), byte(now >> 24), byte(now >> 16)}, now) {
				taken++
			}
		}
	}
	flood(second, 2*second)
	if ask(alice, 2*second) || ask(alice, 2*second+againAfter-1) {
		t.Error("who asks for the first time has room")
	}
	flood(2*second, 6*second)
	if !ask(alice, 6*second) || !ask(alice, 6*second+1) {
		t.Error("who asks again has none")
	}
	if taken != limit {
		t.Errorf("the flood has %d places", taken)
	}
	// Invented clients that ask twice.
	for i := range byte(100) {
		now := 7*second + int64(i)
		if ask(MAC{10, 0, 0, 0, 0, i}, now); ask(MAC{10, 0, 0, 0, 0, i}, now+againAfter) {
			taken++
		}
	}
	if taken != 2*limit-1 {
		t.Errorf("%d places in all beside the one of who asked again, with a limit of %d", taken, limit)
	}
}

func TestPace(t *testing.T) {
	table := NewTable()
	table.Limit("veth1", 4)
	for i := range 2 * burst {
		if err := table.Asked("veth1", Request{MAC: alice, XID: uint32(i), At: second}); errors.Is(err, ErrTooFast) != (i >= burst) {
			t.Errorf("message %d at once: %v", i+1, err)
		}
	}
	if err := table.Asked("veth1", Request{MAC: alice, At: second + pace}); err != nil {
		t.Errorf("a little later: %v", err)
	}
	if err := table.Asked("veth1", Request{MAC: bob, At: second}); err != nil {
		t.Errorf("another client: %v", err)
	}
}
