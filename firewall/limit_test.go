package firewall

import (
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

const perMAC = "policy: p\nrules:\n  - {name: a, match: arp, limit: {rate: 5/s, burst: 5, per: eth.src}, verdict: accept}\n"

// from is an ARP frame of the n-th sender.
func from(n int) []byte {
	b := arpFrame(1, 1)
	b[8], b[9], b[10], b[11] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return b
}

func judge(f *Firewall, b []byte, now int64) Verdict {
	var p filter.Packet
	p.Decode(b, &filter.Meta{Time: now})
	return f.Classify(&p).Verdict
}

// TestLimitHonestPace: a hundred clients, five frames a second each, for a
// minute, spread or in a burst: not one is refused.
func TestLimitHonestPace(t *testing.T) {
	f := mustNew(t, perMAC)
	for tick := range 300 {
		now := int64(1e9) + int64(tick)*200_000_000
		if tick%10 >= 5 {
			now -= now % 1_000_000_000 // five at once
		}
		for c := range 100 {
			if judge(f, from(c), now) != Accept {
				t.Fatalf("client %d refused in tick %d", c, tick)
			}
		}
	}
}

// TestLimitFlood: a flood of invented keys neither opens the door wider than
// the table nor makes classifying allocate, and it ends when the buckets refill.
func TestLimitFlood(t *testing.T) {
	f := mustNew(t, perMAC)
	accepted, n := 0, 0
	const now = int64(1e9)
	for n = range 1 << 20 {
		if judge(f, from(n), now) == Accept {
			accepted++
		}
	}
	if accepted > limitKeys || accepted < limitKeys*9/10 {
		t.Errorf("%d of %d invented senders accepted; the table has room for %d", accepted, n, limitKeys)
	}
	// No slot was taken from a bucket that had not refilled: a sender that spent its
	// burst stays refused through the flood.
	g := mustNew(t, perMAC)
	for range 5 {
		judge(g, from(1), now)
	}
	for n := range 1 << 18 {
		judge(g, from(n+2), now)
	}
	if judge(g, from(1), now) != Drop {
		t.Error("the flood gave a sender new tokens")
	}
	if judge(f, from(1<<30), now+1e9) != Accept {
		t.Error("a new sender is refused although the buckets have refilled")
	}
	var p filter.Packet
	b := from(0)
	n = 1 << 21
	m := &filter.Meta{Time: now + 2e9}
	if allocs := testing.AllocsPerRun(1000, func() {
		n++
		b[8], b[9], b[10], b[11] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		p.Decode(b, m)
		f.Classify(&p)
	}); allocs != 0 {
		t.Errorf("%v allocations for a new key", allocs)
	}
}

func TestKeysPerLimit(t *testing.T) {
	keyed := &Rule{Limit: &Limit{Per: []*filter.Field{{}}}}
	for _, c := range []struct{ rules, want int }{{0, limitKeys}, {1, limitKeys}, {64, limitKeys}, {65, limitKeys / 2}, {10_000, limitKeysFew}} {
		rules := make([]*Rule, c.rules)
		for i := range rules {
			rules[i] = keyed
		}
		if got := keysPerLimit(rules); got != c.want {
			t.Errorf("%d keyed limits: %d keys each, want %d", c.rules, got, c.want)
		}
	}
}

// TestLimitLongText: a text keys a limit whatever its length.
func TestLimitLongText(t *testing.T) {
	f := mustNew(t, "policy: p\nrules:\n  - {name: a, match: arp, limit: {rate: 1/s, burst: 1, per: sender.cgroup}, verdict: accept}\n")
	long := "/kubepods.slice/" + strings.Repeat("x", 200)
	for _, c := range []struct {
		cgroup string
		want   Verdict
	}{{long, Accept}, {long, Drop}, {long + "y", Accept}, {"/", Accept}} {
		var p filter.Packet
		p.Decode(from(1), &filter.Meta{Time: 1e9, Sender: &filter.Sender{Cgroup: c.cgroup}})
		if got := f.Classify(&p).Verdict; got != c.want {
			t.Errorf("%.40s: %v, want %v", c.cgroup, got, c.want)
		}
	}
}
