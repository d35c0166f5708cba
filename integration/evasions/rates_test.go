package evasions

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/postern-fw/postern/firewall"
)

// burst is n DISCOVERs in a second, made by discovery, and how many got out; every
// one that did not must have been decided by the rule named.
func burst(t *testing.T, f *firewall.Firewall, start time.Duration, n int, rule string, discovery func(i int) []byte) (out int) {
	t.Helper()
	for i := range n {
		at := start + time.Duration(i)*time.Second/time.Duration(n)
		switch d := classify(t, f, Frame{Bytes: discovery(i)}, int64(at)); {
		case d.Verdict == firewall.Accept && d.RuleName() == "discover":
			out++
		case d.Verdict != firewall.Drop || d.RuleName() != rule:
			t.Fatalf("DISCOVER %d: %v by %s (%v), want a drop by %s", i, d.Verdict, d.RuleName(), d.Reason, rule)
		}
	}
	return out
}

// someone is a MAC drawn at random, of a kind that a host may have.
func someone(rnd *rand.Rand) MAC {
	n := rnd.Uint64()
	return MAC{0x02, byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24), byte(n >> 32)}
}

func discoverAs(src, chaddr MAC, id []byte) []byte {
	return asRequest(newRequest(chaddr, discover, id).bytes()).toAll(src)
}

// TestRates is the row about 1,000 DISCOVERs a second with random chaddr, and what
// of the row about client identifiers takes more than one frame.
func TestRates(t *testing.T) {
	const start = time.Hour
	h, rnd := NewHost(), rand.New(rand.NewPCG(1, 2))
	f := enforce(t, policies(h).guests)
	for _, c := range []struct {
		name, rule string
		most       int
		discovery  func(i int) []byte
	}{
		{"random chaddr", "no-foreign-chaddr", 0, func(int) []byte { m := someone(rnd); return discoverAs(h.Guest, m, clientID(m)) }},
		{"random chaddr, one's own identifier", "no-foreign-chaddr", 0, func(int) []byte { return discoverAs(h.Guest, someone(rnd), clientID(h.Guest)) }},
		{"random chaddr and source", "no-stranger", 0, func(int) []byte { m := someone(rnd); return discoverAs(m, m, clientID(m)) }},
		{"many hardware addresses as identifiers", "no-foreign-client-id", 0, func(int) []byte { return discoverAs(h.Guest, h.Guest, clientID(someone(rnd))) }},
		{"many texts as identifiers", "no-foreign-client-id", 0, func(i int) []byte {
			return discoverAs(h.Guest, h.Guest, option(optClientID, fmt.Appendf([]byte{0}, "client %d", i)...))
		}},
		// Five at once, and then five a second.
		{"one's own, too often", "default", 10, func(int) []byte { return discoverAs(h.Guest, h.Guest, clientID(h.Guest)) }},
	} {
		out := burst(t, f, start, 1000, c.rule, c.discovery)
		if out > c.most || out < c.most-1 {
			t.Errorf("%s: %d of 1,000 got out, want %d", c.name, out, c.most)
		}
	}
}

// TestHonestRates is the honest twin: 100 clients, 5 a second each, for 5 seconds,
// while one of them floods.
func TestHonestRates(t *testing.T) {
	const start = time.Hour
	h, rnd := NewHost(), rand.New(rand.NewPCG(3, 4))
	f := enforce(t, policies(h).guests)
	clients := make([]MAC, 100)
	for i := range clients {
		clients[i] = someone(rnd)
		add(t, f, Element{"guests", []string{clients[i].String()}})
	}
	for second := range 5 {
		at := start + time.Duration(second)*time.Second
		honest := func(i int) []byte {
			m := clients[i%len(clients)]
			return discoverAs(m, m, clientID(m))
		}
		if out := burst(t, f, at, 5*len(clients), "default", honest); out != 5*len(clients) {
			t.Errorf("second %d: %d of %d honest ones got out", second, out, 5*len(clients))
		}
		flood := func(int) []byte { return discoverAs(h.Guest, h.Guest, nil) }
		if out := burst(t, f, at, 1000, "default", flood); out > 10 {
			t.Errorf("second %d: %d of a flood got out", second, out)
		}
	}
}
