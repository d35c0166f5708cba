package fence

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/postern-fw/postern/integration/lab"
)

func TestJudge(t *testing.T) {
	a := netip.MustParseAddr("10.8.1.1")
	names := []string{"a", "b", "c"}
	for _, c := range []struct {
		spoke   string
		holders []string
		sound   bool
	}{
		{"aaabb", []string{"a", "b"}, true},
		{"aabab", []string{"a", "b"}, false},
		{"aabba", []string{"a", "b", "a"}, true},
		{"aabaab", []string{"a", "b", "a"}, false},
		{"ac", []string{"a", "b", "c"}, true},
		{"c", []string{"a", "b"}, false},
	} {
		var frames []lab.ARP
		for _, x := range c.spoke {
			frames = append(frames, lab.ARP{Port: int(x - 'a'), Sender: a})
		}
		wrong, n := Judge(frames, func(p int) string { return names[p] }, map[netip.Addr][]string{a: c.holders})
		if (len(wrong) == 0) != c.sound || n != len(c.spoke) {
			t.Errorf("%s, %v: %v", c.spoke, c.holders, wrong)
		}
	}
}

// virtual says whether an address is one of the cluster's.
func (s *Site) virtual(a netip.Addr) bool {
	b := a.As4()
	return b[0] == 10 && b[1] == 8 && b[2] >= 1 && b[2] <= 9
}

// distribution tells of durations.
func distribution(list []time.Duration) string {
	if len(list) == 0 {
		return "none"
	}
	slices.Sort(list)
	at := func(p float64) time.Duration {
		return list[int(p*float64(len(list)-1))].Round(time.Millisecond)
	}
	return fmt.Sprintf("%d: min %v, median %v, 90%% %v, 99%% %v, max %v", len(list), at(0), at(.5), at(.9), at(.99), at(1))
}
