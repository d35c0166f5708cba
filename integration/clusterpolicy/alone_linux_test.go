package clusterpolicy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/fence"
)

// TestAlone: a node that does not reach etcd goes on with the last good policy, also when it is started anew; what it
// keeps on disk is checked.
func TestAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, addresses)
	n1, n2 := s.Nodes[0], s.Nodes[1]
	s.start(n1, n2)
	s.put(0, blocking("one", "10.8.9.1"))
	s.eventually("it is kept on disk", func() bool { return s.kept(n1) && s.kept(n2) })
	s.Members[0].Kill()
	boot := func(n *fence.Node) {
		t.Helper()
		n.Agent.Kill()
		must(t, n.Host().Flush()) // a machine that is started anew has nothing in force
		if !s.gets(n, "10.8.9.1") {
			t.Fatal("without a policy the frame does not get out")
		}
	}

	boot(n1)
	// The unit that comes before the network.
	if code, said, err := n1.Postern("agent", "fence", "--config", n1.Config); err != nil || code != 0 {
		t.Fatalf("%d %s %v", code, said, err)
	}
	s.only("10.8.9.1", "n1", "n2")
	s.eventually("the other one's lease is over", func() bool { return !s.gets(n2, vip) })
	s.only(vip, "n1", "n2")
	must(t, n1.Start())
	s.says(n1, "no etcd server answers")
	s.only("10.8.9.1", "n1", "n2")

	// A file that is damaged: the fence alone, and what to do is told.
	file := filepath.Join(s.state(n2), "cluster-policy")
	b, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(strings.Replace(string(b), "10.8.9.1", "10.8.9.2", 1)), 0o600))
	boot(n2)
	must(t, n2.Start())
	s.says(n2, "the file of the last good policy is damaged")
	s.says(n2, "remove it, the agent writes it anew")
	s.says(n2, "no etcd server answers")
	s.only("10.8.9.1", "n1")
	s.only("10.8.9.2")
	s.only(vip, "n1", "n2")

	// etcd comes back, and what stands there is taken and kept.
	must(t, s.StartMember(0))
	s.eventually("it is taken", func() bool { return !s.gets(n2, "10.8.9.1") })
	s.only("10.8.9.1", "n1", "n2")
	s.eventually("the file is whole again", func() bool { return s.kept(n2) })
	s.eventually("nothing is wrong", func() bool { code, _, _ := s.cluster("status"); return code == 0 })
}

// kept says whether the last good policy is on a node's disk, sound.
func (s *site) kept(n *fence.Node) bool {
	b, err := os.ReadFile(filepath.Join(s.state(n), "cluster-policy"))
	return err == nil && strings.Contains(string(b), "10.8.9.1")
}

func (s *site) says(n *fence.Node, what string) {
	s.t.Helper()
	s.eventually(n.Name+" says "+what, func() bool { return strings.Contains(n.Agent.Said(), what) })
}
