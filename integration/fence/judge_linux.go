package fence

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/lab"
)

// History is who held each address, one after the other, by etcd's own account.
func (s *Site) History() (map[netip.Addr][]string, error) {
	out := map[netip.Addr][]string{}
	err := s.Ask(func(ctx context.Context, c *clientv3.Client) error {
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
	})
	return out, err
}

// Judge compares what was seen on the segment with who held what: each address was spoken for by
// one node after the other, in the order in which they held it, and nobody spoke again whose
// successor had spoken. It returns what is wrong.
func Judge(frames []lab.ARP, nodeOf func(int) string, holders map[netip.Addr][]string) (wrong []string, judged int) {
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
