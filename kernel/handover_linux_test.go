package kernel

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// state is a policy with a limit, counters and sets, with room for rules and sets before and after.
func statePolicy(before, after int, sets string) string {
	var b strings.Builder
	b.WriteString("policy: state\nguard: [{interfaces: [near]}]\nsets:\n  vips: {type: ipv4}\n  ranges: {type: ipv4, elements: [192.0.2.100..192.0.2.105]}\n" + sets + "rules:\n")
	for i := range before {
		fmt.Fprintf(&b, "  - {name: b%d, match: arp.src.proto_ipv4 == 203.0.113.%d, limit: {rate: 1/d, burst: 1, per: eth.src}, verdict: accept}\n", i, i%250)
	}
	b.WriteString(`  - {name: few, match: arp.src.proto_ipv4 == 192.0.2.1, limit: {rate: 1/d, burst: 3, per: eth.src}, verdict: accept}
  - {name: live, match: 'arp.src.proto_ipv4 in @vips || arp.src.proto_ipv4 in @ranges', verdict: accept}
`)
	for i := range after {
		fmt.Fprintf(&b, "  - {name: a%d, match: arp.src.proto_ipv4 == 198.51.100.%d && eth.src == iface.mac, verdict: accept}\n", i, i%250)
	}
	return b.String()
}

// TestHandover: what stays keeps its state, whatever else changes around it.
func TestHandover(t *testing.T) {
	var many strings.Builder
	for i := range 24 {
		fmt.Fprintf(&many, "  m%d: {type: [string, ipv6]}\n", i)
	}
	w := newWorld(t)
	w.apply(statePolicy(0, 0, ""))
	got := w.announce(false, 1, 1, 1, 1, 1, 2, 3)
	if !maps.Equal(got, map[byte]int{1: 3}) {
		t.Fatalf("at first %v", got)
	}
	must(t, w.AddToSet("vips", 0, []string{"192.0.2.2"}, []string{"192.0.2.16/30"}, []string{"192.0.2.40..192.0.2.46"}))
	must(t, w.AddToSet("vips", bootTime()+int64(time.Hour), []string{"192.0.2.3"}))
	frames := map[string]uint64{"few": 3, "live": 0, "default": 4}
	for _, c := range []struct {
		name, policy string
	}{
		{"rules and limits before", statePolicy(3, 0, "")},
		{"fewer again", statePolicy(1, 5, "")},
		{"more rules than there were counters for", statePolicy(2, 600, "")},
		{"more sets, with longer keys, than there was room for", statePolicy(0, 20, many.String())},
		{"a set before the others", statePolicy(0, 20, "  a: {type: mac, elements: ['02:00:00:00:00:01']}\n")},
		{"as at first", statePolicy(0, 0, "")},
	} {
		w.apply(c.policy)
		got := w.announce(false, 1, 2, 3, 4, 17, 42, 47, 103)
		if want := map[byte]int{2: 1, 3: 1, 17: 1, 42: 1, 103: 1}; !maps.Equal(got, want) {
			t.Errorf("%s: got out %v, want %v", c.name, got, want)
		}
		frames["live"] += 5
		frames["default"] += 3
		rules, err := w.Rules()
		must(t, err)
		for _, r := range rules {
			if want, ok := frames[r.Name]; ok && r.Frames != want {
				t.Errorf("%s: rule %s counts %d, want %d", c.name, r.Name, r.Frames, want)
			} else if !ok && r.Frames != 0 {
				t.Errorf("%s: the new rule %s begins at %d", c.name, r.Name, r.Frames)
			}
		}
		list, err := w.ListSet("vips")
		must(t, err)
		texts := map[string]bool{}
		for _, e := range list {
			texts[strings.Join(e.Text, " ")] = e.Remaining > 0
		}
		if want := map[string]bool{"192.0.2.2": false, "192.0.2.3": true, "192.0.2.16/30": false, "192.0.2.40..192.0.2.46": false}; !maps.Equal(texts, want) {
			t.Errorf("%s: the set has %v", c.name, texts)
		}
	}
	// A limit that is another one begins anew.
	w.apply(strings.Replace(statePolicy(0, 0, ""), "burst: 3", "burst: 2", 1))
	if got := w.announce(false, 1, 1, 1); got[1] != 2 {
		t.Errorf("another limit lets %v pass", got)
	}
	// Ranges that overlap go one by one.
	must(t, w.AddToSet("vips", 0, []string{"192.0.2.40..192.0.2.50"}, []string{"192.0.2.41"}))
	if n, err := w.DeleteFromSet("vips", []string{"192.0.2.40..192.0.2.46"}); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if got := w.announce(false, 40, 41, 47); got[40]*got[41]*got[47] != 1 {
		t.Errorf("the other range is gone: %v", got)
	}
	if n, err := w.DeleteFromSet("vips", []string{"192.0.2.40..192.0.2.50"}); n != 1 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if got := w.announce(false, 40, 41, 47); got[40]+got[47] != 0 || got[41] != 1 {
		t.Errorf("both ranges are gone, the address stays: %v", got)
	}
}
