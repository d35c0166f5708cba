package fence

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestThousand: what 1,000 addresses on three nodes cost, and how long it takes to move many.
func TestThousand(t *testing.T) {
	parallel(t)
	if raceEnabled {
		t.Skip("the race detector sees no other process")
	}
	o := options(t)
	const n = 1000
	o.Config = `announce: {count: 1, refresh: 10m, rate: 2000, burst: 200, probe: false}
metrics: "unix:/run/metrics"
addresses: [{address: 10.8.4.0-10.8.7.231}]
`
	s := newSite(t, o)
	began := cluster.BootTime()
	for _, node := range s.Nodes {
		must(t, node.Start())
	}
	counts := func() (list []int, total int) {
		by := map[string]int{}
		must(t, s.Ask(func(ctx context.Context, c *clientv3.Client) error {
			r, err := c.Get(ctx, "/postern/vips/", clientv3.WithPrefix())
			if err != nil {
				return err
			}
			for _, kv := range r.Kvs {
				if !bytes.Contains(kv.Value, []byte(`"released":true`)) {
					by[string(bytes.Split(kv.Value, []byte(`"`))[3])]++
				}
			}
			return nil
		}))
		for _, node := range s.Nodes {
			list = append(list, by[node.Name])
			total += by[node.Name]
		}
		return list, total
	}
	even := func(what string, want int) {
		t.Helper()
		eventually(t, 40*time.Second, what, func() bool {
			list, total := counts()
			for _, k := range list {
				if k > 0 && (k < n/want || k > n/want+1) {
					return false
				}
			}
			return total == n
		})
	}
	even("all are held, evenly", 3)
	t.Logf("all %d are held, evenly, %v after the start of three agents", n, since(began))

	time.Sleep(3 * time.Second)
	requests, cpu := s.requests(t), s.cpu(t)
	quiet := 2 * time.Second
	if thorough > 0 {
		quiet = 10 * time.Second
	}
	from := cluster.BootTime()
	time.Sleep(quiet)
	spent := since(from).Seconds()
	t.Logf("at rest: etcd %.1f requests a second in all; an agent takes %.1f%% of a CPU and %d MiB", float64(s.requests(t)-requests)/spent, 100*(s.cpu(t)-cpu).Seconds()/spent/3, s.memory(t)>>20)

	victim := s.Nodes[1]
	held, _ := counts()
	seen := len(s.Observer.Seen(0))
	drained := cluster.BootTime()
	victim.control(t, "/drain")
	released := since(drained)
	announced := s.announced(t, seen, victim, held[1], drained)
	t.Logf("drained: %d addresses given back in %v; the first announced by another after %v, all after %v (%v of it is the pace, %d frames a second)",
		held[1], released.Round(time.Millisecond), announced[0].Round(time.Millisecond), announced[len(announced)-1].Round(time.Millisecond), time.Duration(held[1]/2*2-200)*time.Second/2000, 2000)
	even("two hold all", 2)

	// Two hold 500 each: one is killed.
	victim = s.Nodes[0]
	seen = len(s.Observer.Seen(0))
	killed := cluster.BootTime()
	victim.Agent.Kill()
	announced = s.announced(t, seen, victim, n/2, killed)
	t.Logf("killed: %d addresses; the first announced by another after %v, all after %v", n/2, announced[0].Round(time.Millisecond), announced[len(announced)-1].Round(time.Millisecond))

	returned := cluster.BootTime()
	must(t, victim.Start())
	even("the returned node has its half", 2)
	t.Logf("a node that returned has its half of %d after %v", n, since(returned).Round(time.Millisecond))
	if d := since(returned); d > lease+slack() {
		t.Errorf("evenness took %v, more than a lease", d)
	}
	returned = cluster.BootTime()
	s.Nodes[1].control(t, "/undrain")
	even("the undrained node has its third", 3)
	t.Logf("a node that was undrained has its third of %d after %v", n, since(returned).Round(time.Millisecond))
}

func since(at int64) time.Duration { return time.Duration(cluster.BootTime() - at) }

// announced waits until so many addresses that were the victim's are announced by others, and
// says when each was.
func (s *Site) announced(t testing.TB, from int, victim *Node, n int, struck int64) (when []time.Duration) {
	t.Helper()
	eventually(t, 40*time.Second, "all are announced by others", func() bool {
		when = nil
		done := map[netip.Addr]bool{}
		for _, f := range s.Observer.Seen(from) {
			if f.At > struck && f.Port != victim.Port.Index && f.Sender.As4()[2] >= 4 && !done[f.Sender] {
				done[f.Sender] = true
				when = append(when, time.Duration(f.At-struck))
			}
		}
		return len(when) >= n
	})
	return when
}

// requests is how many etcd's servers have been asked so far, by their own count.
func (s *Site) requests(t testing.TB) (total int) {
	t.Helper()
	for i := range s.Members {
		text := s.metrics(t, i)
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "grpc_server_msg_received_total{") {
				continue
			}
			f := strings.Fields(line)
			v, err := strconv.ParseFloat(f[len(f)-1], 64)
			must(t, err)
			total += int(v)
		}
	}
	return total
}

// cpu is what the agents have used in all.
func (s *Site) cpu(t testing.TB) (total time.Duration) {
	t.Helper()
	for _, n := range s.Nodes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.Agent.PID()))
		must(t, err)
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
		for _, ticks := range f[11:13] { // utime, stime
			k, err := strconv.Atoi(ticks)
			must(t, err)
			total += time.Duration(k) * 10 * time.Millisecond
		}
	}
	return total
}

// memory is the largest resident set of an agent.
func (s *Site) memory(t testing.TB) (most int) {
	t.Helper()
	for _, n := range s.Nodes {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.Agent.PID()))
		must(t, err)
		pages, err := strconv.Atoi(strings.Fields(string(b))[1])
		must(t, err)
		most = max(most, pages*os.Getpagesize())
	}
	return most
}
