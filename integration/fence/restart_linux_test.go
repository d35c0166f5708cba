package fence

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
)

// TestRestart: an agent that is killed and started anew within its lease goes on with it: nobody else
// takes the address. One that is told to end gives it away at once.
func TestRestart(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes = 2
	o.Config = "announce: {count: 3, interval: 300ms, refresh: 500ms}\naddresses: [{address: 10.8.1.1, prefer: [n1]}]\n"
	s := newSite(t, o)
	vip, n1 := addresses(1)[0], s.Nodes[0]
	for _, n := range s.Nodes {
		must(t, n.Start())
	}
	eventually(t, 20*time.Second, "n1 announces", func() bool { return s.speaker(vip, 0) == "n1" })
	time.Sleep(time.Second)
	before := s.history(t)[vip] // n2 may have been the first one up
	killed := cluster.BootTime()
	n1.Agent.Kill()
	must(t, n1.Start())
	eventually(t, 10*time.Second, "n1 has renewed its old lease for longer than that would have lasted", func() bool {
		return cluster.BootTime() > killed+int64(lease+2*time.Second) && s.speaker(vip, cluster.BootTime()-int64(time.Second)) == "n1"
	})
	if h := s.history(t)[vip]; !slices.Equal(h, before) {
		t.Errorf("the holders were %v, %v before the kill", h, before)
	}
	ended := cluster.BootTime()
	must(t, n1.Agent.Signal(syscall.SIGTERM))
	eventually(t, 10*time.Second, "n2 announces", func() bool { return s.speaker(vip, ended) == "n2" })
	for _, f := range s.Observer.Seen(0) {
		if f.Sender == vip && f.Port == s.Nodes[1].Port.Index {
			t.Logf("n2 announces %v after SIGTERM", time.Duration(f.At-ended))
			break
		}
	}
	if code := n1.Agent.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	must(t, s.Ask(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/postern/nodes/n1")
		if err == nil && len(r.Kvs) > 0 {
			t.Error("the node's key is still there")
		}
		return err
	}))
}

// TestAlone: without etcd a node holds all; what the agent opened stays when it is killed.
func TestAlone(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 1, 0, quick("10.8.1.1")
	s := newSite(t, o)
	vip, n := addresses(1)[0], s.Nodes[0]
	must(t, n.Start())
	eventually(t, 10*time.Second, "it announces", func() bool { return s.speaker(vip, 0) == "n1" })
	if st := n.control(t, "/vips"); st == nil || st.Lease != nil || !st.Addresses[0].Open {
		t.Errorf("%+v", st)
	}
	must(t, n.Agent.Signal(syscall.SIGTERM))
	if code := n.Agent.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if has, err := n.Has(vip); err != nil || has {
		t.Errorf("the address is still there: %t, %v", has, err)
	}
}

// TestUnconfigured: an address that left the configuration while the agent was killed is not on the interface any more when another
// agent has begun. Beside one that runs, `agent fence` leaves the fence as it is.
func TestUnconfigured(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members, o.Config = 1, 0, quick("10.8.1.1", "10.8.1.2")
	s := newSite(t, o)
	vips, n := addresses(2), s.Nodes[0]
	must(t, n.Start())
	has := func(i int) bool {
		has, err := n.Has(vips[i])
		must(t, err)
		return has
	}
	eventually(t, 10*time.Second, "it holds both", func() bool { return has(0) && has(1) })
	n.Agent.Kill()
	must(t, n.Configure(quick("10.8.1.2")))
	if !has(0) {
		t.Fatal("the killed agent has taken its address with it")
	}
	must(t, n.Start())
	eventually(t, 10*time.Second, "the address is gone", func() bool { return !has(0) })
	eventually(t, 10*time.Second, "the other one is there", func() bool { return has(1) && s.speaker(vips[1], 0) == "n1" })
	before, err := n.Host().Status()
	must(t, err)
	code, said, err := n.Postern("agent", "fence", "--config", n.Config)
	after, bad := n.Host().Status()
	if err != nil || bad != nil || code != 0 || after.Generation != before.Generation {
		t.Errorf("agent fence beside the agent: %d %s %v %v, generation %d after %d", code, said, err, bad, after.Generation, before.Generation)
	}
}

// TestReturns: a node that was cut off from etcd has its share again within a lease time.
func TestReturns(t *testing.T) {
	parallel(t)
	rounds := 2
	if thorough > 0 {
		rounds = 8
	}
	o := options(t)
	vips := addresses(3)
	o.Config = quick("10.8.1.1-10.8.1.3")
	s := newSite(t, o)
	for _, n := range s.Nodes {
		must(t, n.Start())
	}
	n := s.Nodes[2]
	var took []time.Duration
	for i := range rounds {
		s.balanced(t, vips)
		must(t, s.Hub.Link(n.Control, false))
		time.Sleep(lease + time.Second + time.Duration(i)*700*time.Millisecond)
		must(t, s.Hub.Link(n.Control, true))
		at := cluster.BootTime()
		eventually(t, 20*time.Second, "it has its share again", func() bool { return s.spoken(n, at) > 0 })
		if took = append(took, since(at)); took[i] > lease+slack() {
			t.Errorf("it took %v", took[i])
		}
	}
	t.Logf("a node that was cut off has its share again after %s", distribution(took))
}
