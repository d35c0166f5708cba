package fence

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
)

// addresses are 10.8.1.1 and those that follow.
func addresses(n int) (list []netip.Addr) {
	for i := range n {
		list = append(list, netip.AddrFrom4([4]byte{10, 8, 1, byte(i + 1)}))
	}
	return list
}

// TestFailovers: every fault, again and again, until so many addresses have changed hands. While that goes on
// somebody asks for each address, so that every kernel that has it would answer.
func TestFailovers(t *testing.T) {
	parallel(t)
	want, each, faults := 60, 12, faults
	switch {
	case thorough > 0:
		want, each = thorough, 60
	case raceEnabled:
		want, faults = 1, nodeFaults
	}
	o := options(t)
	vips := addresses(each)
	o.Config = fmt.Sprintf(`announce: {count: 3, interval: 300ms, refresh: 500ms, probe-interval: 50ms}
checks: {alive: {exec: [test, -e, /run/alive], interval: 100ms, timeout: 2s, fall: 1, rise: 1}}
addresses: [{address: %v-%v, check: alive}]
`, vips[0], vips[each-1])
	s := newSite(t, o)
	s.service(t)
	for _, n := range s.Nodes {
		must(t, os.WriteFile(n.alive(), nil, 0o600))
		must(t, n.Start())
	}
	s.balanced(t, vips)
	s.ask(t, vips)
	customers := map[netip.Addr]*customer{}
	for _, a := range vips {
		customers[a] = s.customer(t, a)
	}
	took, outages, late := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string]int{}
	quiet := map[string][]time.Duration{} // between the last frame of one node and the first of the next
	moved := 0
	for i := 0; moved < want || i < len(faults); i++ {
		f := faults[i%len(faults)]
		lost, struck := s.strike(t, f, s.Nodes[i/len(faults)%len(s.Nodes)], vips)
		for a, d := range lost {
			quiet[f.name] = append(quiet[f.name], s.quiet(a, struck, struck+int64(d)))
			took[f.name] = append(took[f.name], d)
			if d > f.within+slack() {
				late[f.name]++
			}
			outages[f.name] = append(outages[f.name], customers[a].outage(struck, cluster.BootTime()))
		}
		moved += len(lost)
		if t.Failed() {
			break
		}
	}
	holders := s.history(t)
	wrong, judged := Judge(s.Observer.Seen(0), s.NodeOf, holders)
	for _, w := range wrong {
		t.Error(w)
	}
	t.Logf("%d failovers; %d ARP frames for the addresses seen, of which %d after a successor's first", moved, judged, len(wrong))
	for _, f := range faults {
		if f.within == 0 {
			continue
		}
		t.Logf("%-48s announced by another after %s", f.name, distribution(took[f.name]))
		t.Logf("%-48s silence in between         %s", "", distribution(quiet[f.name]))
		t.Logf("%-48s its customers' outage      %s", "", distribution(outages[f.name]))
		if late[f.name] > 0 {
			t.Errorf("%s: %d of %d took more than %v", f.name, late[f.name], len(took[f.name]), f.within+slack())
		}
	}
}

// strike does a fault and heals it; it returns how long it took until each lost address was
// announced by another.
func (s *Site) strike(t testing.TB, f fault, victim *Node, vips []netip.Addr) (took map[netip.Addr]time.Duration, struck int64) {
	t.Helper()
	before := map[netip.Addr]string{}
	seen := len(s.Observer.Seen(0))
	for _, a := range vips {
		before[a] = s.speaker(a, cluster.BootTime()-int64(2*time.Second))
	}
	struck = cluster.BootTime()
	losers, heal := f.strike(t, s, victim)
	lost := func(name string) bool {
		return slices.ContainsFunc(losers, func(n *Node) bool { return n.Name == name })
	}
	took = map[netip.Addr]time.Duration{}
	if len(losers) > 0 {
		eventually(t, f.within+20*time.Second, f.name+": all is announced by others", func() bool {
			frames := s.Observer.Seen(seen)
			for _, a := range vips {
				if _, done := took[a]; done || !lost(before[a]) {
					continue
				}
				for _, x := range frames {
					if x.Sender == a && x.At > struck && !lost(s.NodeOf(x.Port)) {
						took[a] = time.Duration(x.At - struck)
						break
					}
				}
				if _, done := took[a]; !done {
					return false
				}
			}
			return true
		})
	}
	heal()
	s.balanced(t, vips)
	return took, struck
}

// quiet is how long nobody spoke for an address before its new holder did at an instant.
func (s *Site) quiet(a netip.Addr, struck, first int64) time.Duration {
	last := struck
	for _, f := range s.Observer.Since(struck) {
		if f.Sender == a && f.At < first {
			last = f.At
		}
	}
	return time.Duration(first - last)
}

// balanced waits until each address is announced, and every node announces as many as the others.
func (s *Site) balanced(t testing.TB, vips []netip.Addr) {
	t.Helper()
	from := cluster.BootTime()
	eventually(t, 40*time.Second, "all is announced, evenly", func() bool {
		time.Sleep(50 * time.Millisecond)
		since := max(from, cluster.BootTime()-int64(1500*time.Millisecond))
		last := map[netip.Addr]string{}
		for _, f := range s.Observer.Since(since) {
			last[f.Sender] = s.NodeOf(f.Port)
		}
		count := map[string]int{}
		for _, a := range vips {
			count[last[a]]++
		}
		for _, n := range s.Nodes {
			if count[n.Name] != len(vips)/len(s.Nodes) {
				return false
			}
		}
		return true
	})
}
