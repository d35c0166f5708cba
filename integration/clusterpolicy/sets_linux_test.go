package clusterpolicy

import (
	"context"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/integration/fence"
)

// TestSets: nodes without virtual addresses take a policy as well, and the elements of its sets; one with a time to live
// ends by itself, on a node that is cut off, too, and one without stays there, also when the node is started anew.
func TestSets(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, "")
	n1, n2 := s.Nodes[0], s.Nodes[1]
	s.start(n1, n2)
	if st, err := n1.Host().Status(); err != nil || st.Enforcing {
		t.Fatalf("a node without addresses enforces something before a policy is put: %+v %v", st, err)
	}
	s.put(0, blocking("one", "10.8.9.1"))
	s.only("10.8.9.1", "n1", "n2")

	do := func(args ...string) {
		t.Helper()
		if code, _, said := s.cluster(append([]string{"set"}, args...)...); code != 0 {
			t.Fatalf("%v: %d %s", args, code, said)
		}
	}
	do("add", "blocked", "10.8.9.4", "10.8.9.16/28")
	do("add", "blocked", "10.8.9.5", "--ttl", "300s")
	do("add", "blocked", "10.8.9.6", "--ttl", "8s")
	for _, n := range s.Nodes {
		s.eventually(n.Name+" has the elements", func() bool {
			return slices.Equal(s.elements(n), []string{"10.8.9.16/28", "10.8.9.4", "10.8.9.5", "10.8.9.6"})
		})
	}
	s.only("10.8.9.20", "n1", "n2")
	s.only("10.8.9.5", "n1", "n2")
	if _, out, _ := s.cluster("set", "list", "blocked"); !strings.Contains(out, "blocked 10.8.9.16/28\n") || !strings.Contains(out, "blocked 10.8.9.5 for ") {
		t.Errorf("list: %s", out)
	}
	do("del", "blocked", "10.8.9.5")
	s.eventually("it is gone", func() bool { return !slices.Contains(s.elements(n1), "10.8.9.5") })

	s.eventually("counters are reported", func() bool { c := s.status().node("n1").Counters; return c.Dropped > 0 && c.Accepted > 0 })

	// Elements survive an exchange of policies.
	s.put(0, blocking("two", "10.8.9.2"))
	s.only("10.8.9.4", "n1", "n2")

	must(t, s.Island(true, n2.Control))
	do("add", "blocked", "10.8.9.7")
	s.eventually("n1 has it", func() bool { return slices.Contains(s.elements(n1), "10.8.9.7") })
	s.eventually("its time is over where etcd is not reached, as well", func() bool {
		return slices.Equal(s.elements(n2), []string{"10.8.9.16/28", "10.8.9.4"}) && !slices.Contains(s.elements(n1), "10.8.9.6")
	})
	n2.Agent.Kill()
	must(t, n2.Host().Flush())
	must(t, n2.Start())
	s.eventually("they are there from the disk", func() bool { return slices.Equal(s.elements(n2), []string{"10.8.9.16/28", "10.8.9.4"}) })
	s.only("10.8.9.2", "n1", "n2")
	must(t, s.Island(false, n2.Control))
	s.eventually("it has what was added meanwhile", func() bool { return slices.Contains(s.elements(n2), "10.8.9.7") })

	// etcd emptied: all go on with what they have, also when the first version that is put there fails.
	s.ask(func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Delete(ctx, "/postern/cluster/", clientv3.WithPrefix())
		return err
	})
	s.only("10.8.9.2", "n1", "n2")
	cut := strings.Replace(blocking("cut", "10.8.9.3"), "[eth0]", "[eth0, etcd0]", 1)
	cut = strings.Replace(cut, "rules:\n", "rules:\n  - {name: no-etcd, match: ip.dst == 10.9.0.101, verdict: drop}\n", 1)
	s.eventually("the nodes have reported again", func() bool { return s.status().node("n1").Number > 0 && s.status().node("n2").Number > 0 })
	if said := s.put(1, cut, "--first", "n1"); !strings.Contains(said, "etcd was not reached") {
		t.Error(said)
	}
	s.only("10.8.9.3")
	s.only("10.8.9.2", "n1", "n2")
	if code, _, said := s.cluster("rollback", "999"); code != 1 || !strings.Contains(said, "no such version") {
		t.Errorf("rollback of what is not there: %d %s", code, said)
	}
	s.put(0, blocking("three", "10.8.9.3"), "--first", "n2")
	s.only("10.8.9.3", "n1", "n2")
	s.only("10.8.9.2")
}

// elements are those of the set on a node, sorted.
func (s *site) elements(n *fence.Node) (list []string) {
	elements, err := n.Host().ListSet("blocked")
	if err != nil {
		return nil
	}
	for _, e := range elements {
		list = append(list, e.Text[0])
	}
	slices.Sort(list)
	return list
}
