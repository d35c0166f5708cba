package fence

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/internal/control"
)

// fault is something that goes wrong at a node, or with etcd, or both.
type fault struct {
	name string
	// within is how long after the fault another node must have announced; 0 if none need to.
	within time.Duration
	// strike does it to one node, or to some, and says which of them should lose what they hold.
	strike func(t testing.TB, s *Site, victim *Node) (losers []*Node, heal func())
}

const (
	lease = 3 * time.Second
	// electing is what a lease lasts longer where etcd's leader is lost: 3 s if its followers agree (TestLeaderDies), and they
	// may have to wait for 1 to 2 s and elect once more.
	electing = 6 * time.Second
	// graceful is what a hand-over may take.
	graceful = 200 * time.Millisecond
)

var faults = slices.Concat(nodeFaults, etcdFaults)

// nodeFaults are those of one node while etcd is well.
var nodeFaults = []fault{
	{"kill -9", lease + time.Second, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		n.Agent.Kill()
		return []*Node{n}, func() { must(t, n.Start()) }
	}},
	// As kill -9, and nobody serves at the node any more.
	{"the whole node lost", lease + time.Second, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		must(t, s.Hub.Link(n.Port.Name, false))
		must(t, s.Hub.Link(n.Control, false))
		n.Agent.Kill()
		return []*Node{n}, func() {
			must(t, s.Hub.Link(n.Port.Name, true))
			must(t, s.Hub.Link(n.Control, true))
			must(t, n.Start())
		}
	}},
	{"SIGSTOP", lease + time.Second, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		must(t, n.Agent.Signal(syscall.SIGSTOP))
		return []*Node{n}, func() { must(t, n.Agent.Signal(syscall.SIGCONT)) }
	}},
	{"etcd link cut", lease + time.Second, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		must(t, s.Hub.Link(n.Control, false))
		return []*Node{n}, func() { must(t, s.Hub.Link(n.Control, true)) }
	}},
	{"drain", graceful, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		go n.control(t, "/drain")
		return []*Node{n}, func() { n.control(t, "/undrain") }
	}},
	// The check runs every 100 ms.
	{"check fails", graceful + 500*time.Millisecond, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		must(t, os.Remove(n.alive()))
		return []*Node{n}, func() { must(t, os.WriteFile(n.alive(), nil, 0o600)) }
	}},
}

// etcdFaults are etcd's, and some at once.
var etcdFaults = []fault{
	{"etcd leader killed", 0, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		leader := s.killLeader(t)
		time.Sleep(lease + time.Second)
		return nil, func() { must(t, s.StartMember(leader)) }
	}},
	// It closes nothing: whoever asks it waits.
	{"etcd leader frozen", 0, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		leader, err := s.Leader()
		must(t, err)
		must(t, s.Members[leader].Signal(syscall.SIGSTOP))
		time.Sleep(lease + time.Second)
		return nil, func() { must(t, s.Members[leader].Signal(syscall.SIGCONT)) }
	}},
	{"etcd leader killed with the holder", lease + electing, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		n.Agent.Kill()
		leader := s.killLeader(t)
		return []*Node{n}, func() { must(t, s.StartMember(leader)); must(t, n.Start()) }
	}},
	// That leader renews the node's lease until it knows that it leads nobody, up to 2 s; meanwhile the others
	// elect another leader, which renews it once more and adds 1 s.
	{"the holder cut off together with etcd's leader", lease + electing, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		leader, err := s.Leader()
		must(t, err)
		ports := []string{n.Control, fmt.Sprintf("m%d", leader)}
		must(t, s.Island(true, ports...))
		return []*Node{n}, func() { must(t, s.Island(false, ports...)) }
	}},
	{"one killed, another cut off", lease + time.Second, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		other := s.next(n)
		n.Agent.Kill()
		must(t, s.Hub.Link(other.Control, false))
		return []*Node{n, other}, func() { must(t, s.Hub.Link(other.Control, true)); must(t, n.Start()) }
	}},
	{"etcd majority lost and regained", 0, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		return nil, s.silenced(t, true, lease)
	}},
	{"etcd majority lost and regained, its leader left alone", 0, func(t testing.TB, s *Site, n *Node) ([]*Node, func()) {
		// It knows by its own clock ticks, which come late on a busy machine.
		return nil, s.silenced(t, false, lease+2*time.Second+slack()/2)
	}},
}

// silenced kills two servers of etcd, the leader among them or not. All must be silent after a while, whatever asks
// for them: a leader that is left alone goes on renewing until it knows.
func (s *Site) silenced(t testing.TB, leaderToo bool, within time.Duration) (heal func()) {
	t.Helper()
	leader, err := s.Leader()
	must(t, err)
	first, second := leader, (leader+1)%3
	if !leaderToo {
		first = (leader + 2) % 3
	}
	s.Members[first].Kill()
	s.Members[second].Kill()
	struck := cluster.BootTime()
	time.Sleep(within + 500*time.Millisecond)
	for _, f := range s.Observer.Since(struck + int64(within)) {
		if s.virtual(f.Sender) {
			t.Errorf("%s speaks for %v %v after etcd's majority was lost", s.NodeOf(f.Port), f.Sender, time.Duration(f.At-struck))
			break
		}
	}
	return func() { must(t, s.StartMember(first)); must(t, s.StartMember(second)) }
}

func (s *Site) killLeader(t testing.TB) int {
	t.Helper()
	leader, err := s.Leader()
	must(t, err)
	s.Members[leader].Kill()
	return leader
}

func (s *Site) next(n *Node) *Node {
	for i := range s.Nodes {
		if s.Nodes[i] == n {
			return s.Nodes[(i+1)%len(s.Nodes)]
		}
	}
	return nil
}

// alive is the file that the node's check looks for.
func (n *Node) alive() string { return join(n.run, "alive") }

// control asks the node's agent something at its control socket.
func (n *Node) control(t testing.TB, path string) *cluster.Status {
	t.Helper()
	cookie, err := n.Host().Cookie()
	must(t, err)
	c, err := control.Dial(join(n.run, "postern", "agent-"+strconv.FormatUint(cookie, 10)+".sock"))
	if err != nil {
		t.Errorf("%s: %v", n.Name, err)
		return nil
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	method := http.MethodPost
	if path == "/vips" {
		method = http.MethodGet
	}
	var st cluster.Status
	if err := c.Call(ctx, method, path, &st); err != nil {
		t.Errorf("%s: %s: %v", n.Name, path, err)
		return nil
	}
	return &st
}
