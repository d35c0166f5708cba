package fence

import (
	"syscall"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
)

// TestUnfenced: the same fault, and the same judge, without the fence: the frozen node's kernel
// answers for an address that another has, and the judge sees it. With the fence it
// does not, and what the woken agent does is seen by the judge as well.
func TestUnfenced(t *testing.T) {
	parallel(t)
	for _, c := range []struct {
		name   string
		fenced bool
	}{{"with the fence", true}, {"without", false}} {
		t.Run(c.name, func(t *testing.T) {
			parallel(t)
			o := options(t)
			vips := addresses(3)
			o.Config = quick("10.8.1.1-10.8.1.3")
			s := newSite(t, o)
			for _, n := range s.Nodes {
				must(t, n.Start())
			}
			s.balanced(t, vips)
			s.ask(t, vips)
			victim := s.Nodes[0]
			var vip = vips[0]
			for _, a := range vips {
				if s.speaker(a, 0) == victim.Name {
					vip = a
				}
			}
			must(t, victim.Agent.Signal(syscall.SIGSTOP))
			if !c.fenced {
				must(t, victim.Host().Flush())
			}
			stopped := cluster.BootTime()
			eventually(t, 15*time.Second, "another one announces", func() bool {
				for _, f := range s.Observer.Seen(0) {
					if f.Sender == vip && f.At > stopped && f.Port != victim.Port.Index {
						return true
					}
				}
				return false
			})
			has, err := victim.Has(vip)
			must(t, err)
			if !has {
				t.Error("the address is not on the frozen node's interface: this proves little")
			}
			time.Sleep(time.Second)
			must(t, victim.Agent.Signal(syscall.SIGCONT))
			time.Sleep(time.Second)
			wrong, judged := Judge(s.Observer.Seen(0), s.NodeOf, s.history(t))
			t.Logf("%d frames judged: %q", judged, wrong)
			if c.fenced && len(wrong) > 0 || !c.fenced && len(wrong) == 0 {
				t.Errorf("%d addresses were spoken for by a node whose successor had spoken", len(wrong))
			}
		})
	}
}

// TestBoot: a machine that has an address on its interface, by whatever configuration, answers for it
// until `postern agent fence`, and not from then on, though no agent ever ran; nor does an agent
// that finds no etcd open the door.
func TestBoot(t *testing.T) {
	parallel(t)
	o := options(t)
	o.Nodes, o.Members = 1, 0
	o.Config = "etcd: {endpoints: [\"http://10.9.0.254:2379\"]}\n" + quick("10.8.1.1")
	s := newSite(t, o)
	n, vips := s.Nodes[0], addresses(1)
	must(t, n.address(vips[0]))
	s.ask(t, vips)
	answers := func(since int64) int { return s.spoken(n, since) }
	eventually(t, 5*time.Second, "the kernel answers without a fence", func() bool { return answers(0) > 0 })
	if code, said, err := n.Postern("agent", "fence", "--config", n.Config); err != nil || code != 0 {
		t.Fatalf("agent fence: %d %s %v", code, said, err)
	}
	up := cluster.BootTime()
	time.Sleep(500 * time.Millisecond)
	if k := answers(up); k > 0 {
		t.Errorf("%d answers left with the fence up", k)
	}
	must(t, n.Start())
	eventually(t, 10*time.Second, "the agent has taken the address off the interface", func() bool {
		has, err := n.Has(vips[0])
		must(t, err)
		return !has
	})
	if k := answers(up); k > 0 {
		t.Errorf("%d answers left while an agent ran that has no lease", k)
	}
}
