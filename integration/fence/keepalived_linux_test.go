package fence

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// splitBrain is how many frames for an address do not fit to one node speaking, then another, then
// the first one again: old*, new*, old*.
func splitBrain(frames []lab.ARP, a netip.Addr, old int) int {
	const phases = 3
	var least [phases]int // frames that do not fit, by the phase that was come to
	for _, f := range frames {
		if f.Sender != a {
			continue
		}
		var next [phases]int
		for p := range phases {
			best := least[p]
			for q := range p {
				best = min(best, least[q])
			}
			if (f.Port == old) != (p != 1) {
				best++
			}
			next[p] = best
		}
		least = next
	}
	return min(least[0], least[1], least[2])
}

func TestSplitBrain(t *testing.T) {
	a := netip.MustParseAddr("10.8.1.1")
	for spoke, want := range map[string]int{"": 0, "ooo": 0, "oonn": 0, "oonnoo": 0, "onon": 1, "ononon": 2, "onnonnono": 2} {
		var frames []lab.ARP
		for _, c := range spoke {
			frames = append(frames, lab.ARP{Port: int(c), Sender: a})
		}
		if got := splitBrain(frames, a, 'o'); got != want {
			t.Errorf("%s: %d, want %d", spoke, got, want)
		}
	}
}

// keepalived starts one on the node, with VRRP on the network besides.
func (n *Node) keepalived(t testing.TB, priority int) (p *Process, vrrp func() int) {
	t.Helper()
	config, pid := join(n.site.Dir, n.Name+".conf"), join(n.site.Dir, n.Name+".vrrp")
	must(t, os.WriteFile(config, fmt.Appendf(nil, `vrrp_instance v {
	state BACKUP
	interface etcd0
	virtual_router_id 51
	priority %d
	advert_int 1
	virtual_ipaddress {
		10.8.1.1/32 dev eth0
	}
}
`, priority), 0o600))
	p, err := start(n.NS, join(n.site.Dir, n.Name+".kalog"), "keepalived", "--vrrp", "--dont-fork", "--log-console", "-f", config,
		"--pid", join(n.site.Dir, n.Name+".pid"), "--vrrp_pid", pid)
	must(t, err)
	t.Cleanup(func() {
		_ = p.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(5 * time.Second):
			p.Kill()
		}
	})
	return p, func() int {
		b, err := os.ReadFile(pid)
		must(t, err)
		k, err := strconv.Atoi(strings.TrimSpace(string(b)))
		must(t, err)
		return k
	}
}

// system keeps an address at n1 as long as n1 is well.
type system struct {
	name  string
	start func(t testing.TB, s *Site)
	stop  func(n *Node, sig syscall.Signal) error
}

// TestKeepalived: the same segment, the same faults, keepalived and the agent side by side. n1 is
// preferred by both. What is counted are frames of a node whose successor had spoken.
func TestKeepalived(t *testing.T) {
	parallel(t)
	if raceEnabled {
		t.Skip("the race detector sees no other process")
	}
	if _, err := exec.LookPath("keepalived"); err != nil {
		labtest.Cannot(t, "needs keepalived")
	}
	vrrp := map[*Node]func() int{}
	for _, sys := range []system{
		{"keepalived", func(t testing.TB, s *Site) {
			for i, n := range s.Nodes {
				_, vrrp[n] = n.keepalived(t, 100-i)
			}
		}, func(n *Node, sig syscall.Signal) error { return syscall.Kill(vrrp[n](), sig) }},
		{"postern agent", func(t testing.TB, s *Site) {
			for _, n := range s.Nodes {
				must(t, n.Start())
			}
		}, func(n *Node, sig syscall.Signal) error { return n.Agent.Signal(sig) }},
	} {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			s := sys.suffer(t)
			if sys.name != "postern agent" {
				return
			}
			// By who held it, since a busy machine may move it once more.
			wrong, _ := Judge(s.Observer.Seen(0), s.NodeOf, s.history(t))
			for _, w := range wrong {
				t.Error(w)
			}
		})
	}
}

// suffer tells how many frames came from a node whose successor had spoken, by fault.
func (sys system) suffer(t *testing.T) *Site {
	times := 1
	if thorough > 0 {
		times = 10
	}
	vip := addresses(1)[0]
	o := options(t)
	o.Config = "announce: {probe-interval: 50ms}\naddresses: [{address: 10.8.1.1, prefer: [n1, n2, n3]}]\n"
	s := newSite(t, o)
	s.ask(t, []netip.Addr{vip})
	sys.start(t, s)
	n := s.Nodes[0]
	speaks := func(since int64) bool {
		now := cluster.BootTime()
		return now > since+int64(2*time.Second) && s.speaker(vip, now-int64(500*time.Millisecond)) == "n1"
	}
	eventually(t, 20*time.Second, "n1 announces", func() bool { return speaks(0) })
	for _, f := range []struct {
		name         string
		strike, heal func()
	}{
		{"SIGSTOP for 8 s", func() { must(t, sys.stop(n, syscall.SIGSTOP)) }, func() { must(t, sys.stop(n, syscall.SIGCONT)) }},
		{"cut off from the other nodes and etcd for 8 s", func() { must(t, s.Island(true, n.Control)) }, func() { must(t, s.Island(false, n.Control)) }},
	} {
		var count []int
		for range times {
			from := len(s.Observer.Seen(0))
			struck := cluster.BootTime()
			f.strike()
			eventually(t, 15*time.Second, "another one announces", func() bool {
				return slices.ContainsFunc(s.Observer.Seen(from), func(x lab.ARP) bool { return x.Sender == vip && x.At > struck && x.Port != n.Port.Index })
			})
			time.Sleep(time.Duration(struck + int64(8*time.Second) - cluster.BootTime()))
			f.heal()
			healed := cluster.BootTime()
			eventually(t, 20*time.Second, "n1 announces again", func() bool { return speaks(healed) })
			count = append(count, splitBrain(s.Observer.Seen(from), vip, n.Port.Index))
		}
		t.Logf("%s: frames of a node whose successor had spoken: %v", f.name, count)
	}
	return s
}
