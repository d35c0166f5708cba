package firewall

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/postern-fw/postern/firewall/filter"
)

const setPolicy = `policy: p
sets:
  own: {type: ipv4, elements: [192.0.2.1, 198.51.100.0/24, 203.0.113.5..203.0.113.9]}
  leases: {type: [mac, ipv4]}
rules:
  - {name: own, match: arp.src.proto_ipv4 in @own, verdict: accept}
  - {name: lease, match: "(arp.src.hw_mac, arp.src.proto_ipv4) in @leases", verdict: accept}
`

// arpOf is a reply of 02:00:00:00:00:01 for ip.
func arpOf(ip [4]byte) []byte {
	b := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1}, ip[:]...)
	return append(append(b, 2, 0, 0, 0, 0, 2), ip[:]...)
}

func decides(f *Firewall, ip [4]byte, now int64) string {
	var p filter.Packet
	p.Decode(arpOf(ip), &filter.Meta{Time: now})
	d := f.Classify(&p)
	return d.RuleName()
}

func change(t *testing.T, f *Firewall, set string, deadline int64, del bool, texts ...string) {
	t.Helper()
	for _, decl := range f.Policy().Sets {
		if decl.Name != set {
			continue
		}
		e, err := decl.Element(texts...)
		if err != nil {
			t.Fatal(err)
		}
		e.Deadline = deadline
		if !f.UpdateSet(set, func(s *Set) {
			if del {
				s.Delete(e)
			} else {
				s.Add(e)
			}
		}) {
			t.Fatalf("no set %s", set)
		}
	}
}

func TestSetElements(t *testing.T) {
	f := mustNew(t, setPolicy)
	for ip, want := range map[[4]byte]string{
		{192, 0, 2, 1}: "own", {192, 0, 2, 2}: "default",
		{198, 51, 100, 0}: "own", {198, 51, 100, 255}: "own", {198, 51, 101, 0}: "default",
		{203, 0, 113, 4}: "default", {203, 0, 113, 5}: "own", {203, 0, 113, 9}: "own", {203, 0, 113, 10}: "default",
	} {
		if got := decides(f, ip, 0); got != want {
			t.Errorf("%v: %s, want %s", ip, got, want)
		}
	}
}

// TestSetDeadlines: an element ends at its instant by the machine's clock,
// whatever time stamp a frame has, and a replacement does not prolong it. What was
// added live stays, what the file took out goes.
func TestSetDeadlines(t *testing.T) {
	f := mustNew(t, setPolicy)
	ip := [4]byte{192, 0, 2, 66}
	change(t, f, "leases", bootTime()+3600e9, false, "02:00:00:00:00:01", "192.0.2.66")
	change(t, f, "leases", bootTime()-1, false, "02:00:00:00:00:01", "192.0.2.68")
	change(t, f, "leases", 0, false, "02:00:00:00:00:99", "192.0.2.67") // of another
	for round, own := range []string{"own", "default", "default"} {
		for ip, want := range map[[4]byte]string{
			ip: "lease", {192, 0, 2, 67}: "default", {192, 0, 2, 68}: "default", {192, 0, 2, 1}: own,
		} {
			if got := decides(f, ip, 1); got != want {
				t.Errorf("round %d: %v: %s, want %s", round, ip, got, want)
			}
		}
		p, _, err := Parse("p.yaml", []byte("policy: p\nsets: {own: {type: ipv4}, leases: {type: [mac, ipv4]}}\nrules:\n"+
			"  - {name: own, match: arp.src.proto_ipv4 in @own, verdict: accept}\n"+
			"  - {name: lease, match: \"(arp.src.hw_mac, arp.src.proto_ipv4) in @leases\", verdict: accept}\n"))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Replace(p); err != nil {
			t.Fatal(err)
		}
	}
	end := bootTime() + 20e6
	change(t, f, "leases", end, false, "02:00:00:00:00:01", "192.0.2.66")
	for bootTime() < end {
		time.Sleep(time.Millisecond)
	}
	if got := decides(f, ip, 1); got != "default" {
		t.Errorf("after its end: %s", got)
	}
	change(t, f, "leases", 0, false, "02:00:00:00:00:01", "192.0.2.66")
	if got := decides(f, ip, 1); got != "lease" {
		t.Errorf("given anew for ever: %s", got)
	}
	change(t, f, "leases", 0, true, "02:00:00:00:00:01", "192.0.2.66")
	if got := decides(f, ip, 1); got != "default" {
		t.Errorf("after its deletion: %s", got)
	}
}

// TestSetForgets: short-lived elements do not pile up.
func TestSetForgets(t *testing.T) {
	f := mustNew(t, setPolicy)
	for i := range 20000 {
		change(t, f, "own", 1, false, fmt.Sprintf("10.%d.%d.1", i>>8, i&255))
	}
	f.UpdateSet("own", func(s *Set) {
		if n := len(s.elements); n > 2000 {
			t.Errorf("%d dead elements are kept", n)
		}
		if n := len(s.List()); n != 3 {
			t.Errorf("%d live elements, want 3", n)
		}
	})
}

// TestReplaceUnderFire: each frame is judged by the old policy or by the new one.
func TestReplaceUnderFire(t *testing.T) {
	var policies [2]*Policy
	for i, rules := range []string{
		"  - {name: even, match: arp.src.proto_ipv4 == 192.0.2.0/24, verdict: accept}\n  - {name: evenno, match: arp, verdict: drop}\n",
		"  - {name: oddno, match: arp.opcode == 1, verdict: drop}\n  - {name: odd, match: arp.src.proto_ipv4 == 192.0.0.0/16, verdict: accept}\n",
	} {
		p, _, err := Parse("p.yaml", []byte("policy: p\nrules:\n"+rules))
		if err != nil {
			t.Fatal(err)
		}
		policies[i] = p
	}
	f, err := New(policies[0])
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	var judged atomic.Int64
	for _, c := range []struct {
		ip    [4]byte
		rules map[string]bool
	}{
		{[4]byte{192, 0, 2, 1}, map[string]bool{"even": true, "odd": true}},
		{[4]byte{10, 0, 0, 1}, map[string]bool{"evenno": true, "default": true}},
	} {
		wg.Go(func() {
			for !stop.Load() {
				if got := decides(f, c.ip, 1); !c.rules[got] {
					t.Errorf("%v: %s", c.ip, got)
					return
				}
				judged.Add(1)
			}
		})
	}
	for i := range 2000 {
		if err := f.Replace(policies[i%2]); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if judged.Load() == 0 {
		t.Error("no frame was judged meanwhile")
	}
}

// TestSetSpelling: an element is the same however it is written.
func TestSetSpelling(t *testing.T) {
	f := mustNew(t, setPolicy)
	for _, c := range [][2]string{{"192.0.2.1", "192.0.2.1/32"}, {"198.51.100.0/24", "198.51.100.0..198.51.100.255"}, {"203.0.113.9..203.0.113.9", "203.0.113.9"}} {
		change(t, f, "own", 0, false, c[0])
		change(t, f, "own", 1, false, c[1]) // ended long ago
		f.UpdateSet("own", func(s *Set) {
			for _, e := range s.List() {
				if e.Text == c[0] {
					t.Errorf("%s is there although %s has ended", c[0], c[1])
				}
			}
		})
	}
}
