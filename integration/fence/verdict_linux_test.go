package fence

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/lab"
)

// history is who held each address, one after the other, by etcd's own account.
func (s *Site) history(t testing.TB) map[netip.Addr][]string {
	t.Helper()
	out := map[netip.Addr][]string{}
	must(t, s.Ask(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/postern/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for w := range c.Watch(ctx, "/postern/vips/", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithProgressNotify()) {
			if err := w.Err(); err != nil {
				return err
			}
			for _, e := range w.Events {
				a, err := netip.ParseAddr(strings.TrimPrefix(string(e.Kv.Key), "/postern/vips/"))
				var h cluster.Holder
				if err != nil || json.Unmarshal(e.Kv.Value, &h) != nil || h.Released {
					continue
				}
				if last := out[a]; len(last) == 0 || last[len(last)-1] != h.Node {
					out[a] = append(last, h.Node)
				}
			}
			if w.Header.Revision >= r.Header.Revision {
				return nil
			}
			if err := c.RequestProgress(ctx); err != nil {
				return err
			}
		}
		return ctx.Err()
	}))
	return out
}

// judge compares what was seen on the segment with who held what: each address was spoken for by
// one node after the other, in the order in which they held it, and nobody spoke again whose
// successor had spoken. It returns what is wrong.
func judge(frames []lab.ARP, nodeOf func(int) string, holders map[netip.Addr][]string) (wrong []string, judged int) {
	at := map[netip.Addr]int{}
	lost := map[netip.Addr]bool{}
	for _, f := range frames {
		h, ours := holders[f.Sender]
		if !ours {
			continue
		}
		judged++
		if lost[f.Sender] {
			continue
		}
		i := slices.Index(h[at[f.Sender]:], nodeOf(f.Port))
		if i < 0 {
			lost[f.Sender] = true
			wrong = append(wrong, fmt.Sprintf("%v is spoken for by %s, whose successor had spoken: the holders were %v, the %d. had spoken last", f.Sender, nodeOf(f.Port), h, at[f.Sender]+1))
			continue
		}
		at[f.Sender] += i
	}
	return wrong, judged
}

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
		wrong, n := judge(frames, func(p int) string { return names[p] }, map[netip.Addr][]string{a: c.holders})
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
