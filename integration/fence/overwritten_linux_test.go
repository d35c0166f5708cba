package fence

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/lab"
)

// TestOverwritten: somebody names another node the holder of an address, under that node's own lease, while the holder is
// frozen with its door open. The named one does not speak before the holder's door is shut.
func TestOverwritten(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 2, 1, quick("10.8.1.1")
	s := newSite(t, o)
	vip := addresses(1)[0]
	for _, n := range s.Nodes {
		must(t, n.Start())
	}
	s.ask(t, addresses(1))
	eventually(t, 20*time.Second, "somebody announces", func() bool { return s.speaker(vip, 0) != "" })
	holder := s.Nodes[0]
	if s.speaker(vip, 0) != holder.Name {
		holder = s.Nodes[1]
	}
	named := s.next(holder)
	eventually(t, 10*time.Second, "both are there", func() bool { st := named.control(t, "/vips"); return st != nil && len(st.Nodes) == 2 })
	must(t, holder.Agent.Signal(syscall.SIGSTOP))
	must(t, s.Ask(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/postern/nodes/"+named.Name)
		if err != nil {
			return err
		}
		_, err = c.Put(ctx, "/postern/vips/"+vip.String(), fmt.Sprintf(`{"node": %q}`, named.Name), clientv3.WithLease(clientv3.LeaseID(r.Kvs[0].Lease)))
		return err
	}))
	written := cluster.BootTime()
	speaks := func(n *Node) int64 {
		list := s.Observer.Since(written)
		if n == holder {
			slices.Reverse(list)
		}
		i := slices.IndexFunc(list, func(f lab.ARP) bool { return f.Sender == vip && f.Port == n.Port.Index })
		if i < 0 {
			return 0
		}
		return list[i].At
	}
	eventually(t, 15*time.Second, named.Name+" announces", func() bool { return speaks(named) > 0 })
	must(t, holder.Agent.Signal(syscall.SIGCONT))
	time.Sleep(time.Second)
	last, first := speaks(holder), speaks(named)
	if last == 0 {
		t.Error("the frozen node's kernel did not answer: this proves little")
	}
	t.Logf("%s's last frame %v, %s's first %v after the key was written", holder.Name, time.Duration(last-written), named.Name, time.Duration(first-written))
	if first < last {
		t.Errorf("two nodes spoke")
	}
}
