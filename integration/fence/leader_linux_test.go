package fence

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
)

// TestLeaderDies: etcd's leader dies with the holder, and where the time goes until another node speaks. The followers
// elect a leader (1 to 2 s after the last heartbeat, and again if they do not agree); it renews every
// lease and adds an election timeout (lessor.Promote); twice a second it removes what is over. Then
// it is the nodes' turn.
func TestLeaderDies(t *testing.T) {
	parallel(t)
	if raceEnabled {
		t.Skip("the race detector sees no other process")
	}
	for _, c := range []struct {
		name    string
		flags   []string
		timeout time.Duration // etcd's for an election
		rounds  int           // of the short form
	}{
		{"etcd as it comes", nil, time.Second, 1},
		{"--heartbeat-interval 50 --election-timeout 500", []string{"--heartbeat-interval", "50", "--election-timeout", "500"}, 500 * time.Millisecond, 0},
	} {
		rounds := c.rounds
		if thorough > 0 {
			rounds = 10
		}
		if rounds == 0 {
			continue // a part of the long form alone
		}
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			o.Flags = c.flags
			o.Config = "announce: {refresh: 500ms, probe-interval: 50ms}\naddresses: [{address: 10.8.1.1, prefer: [n1]}]\n"
			s := newSite(t, o)
			for _, n := range s.Nodes {
				must(t, n.Start())
			}
			var elected, over, spoken, all []time.Duration
			late := 0
			for range rounds {
				d := s.leaderDies(t)
				elected, over, spoken, all = append(elected, d[0]), append(over, d[1]-d[0]), append(spoken, d[2]-d[1]), append(all, d[2])
				if d[2] > lease+3*time.Second {
					late++
				}
				if most := lease + c.timeout + 700*time.Millisecond + slack(); d[1]-d[0] > most {
					t.Errorf("the new leader let the lease end after %v, more than %v", d[1]-d[0], most)
				}
				if d[2]-d[1] > graceful+slack() {
					t.Errorf("nobody spoke for %v after the lease was over", d[2]-d[1])
				}
			}
			t.Logf("another leader is elected after          %s", distribution(elected))
			t.Logf("it removes what the dead node held after %s", distribution(over))
			t.Logf("another node speaks after                %s", distribution(spoken))
			t.Logf("in all                                   %s; more than %v: %d", distribution(all), lease+3*time.Second, late)
		})
	}
}

// leaderDies kills n1 and etcd's leader, and says when another leader was elected, when the key of n1's address was gone, and
// when another node spoke for it. Then all is as before.
func (s *Site) leaderDies(t testing.TB) (after [3]time.Duration) {
	vip, n := addresses(1)[0], s.Nodes[0]
	eventually(t, 40*time.Second, "n1 speaks", func() bool { return s.speaker(vip, cluster.BootTime()-int64(time.Second)) == "n1" })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	leader, err := s.Leader()
	must(t, err)
	since := make(chan [2]int64, 2)
	for i, at := range s.Endpoints() {
		if i == leader {
			continue
		}
		c, err := s.Dial(at)
		must(t, err)
		t.Cleanup(func() { c.Close() })
		r, err := c.Status(ctx, at)
		must(t, err)
		gone := c.Watch(ctx, "/postern/vips/"+vip.String(), clientv3.WithCreatedNotify())
		<-gone
		go func() {
			var told [2]int64
			for ctx.Err() == nil && told[0] == 0 {
				if now, err := c.Status(ctx, at); err == nil && now.Leader != 0 && now.Leader != r.Leader {
					told[0] = cluster.BootTime()
				}
				time.Sleep(10 * time.Millisecond)
			}
			for e := range gone {
				if len(e.Events) > 0 {
					break
				}
			}
			told[1] = cluster.BootTime()
			since <- told
		}()
	}
	s.Members[leader].Kill()
	n.Agent.Kill()
	struck := cluster.BootTime()
	one, two := <-since, <-since
	after[0], after[1] = time.Duration(min(one[0], two[0])-struck), time.Duration(min(one[1], two[1])-struck)
	eventually(t, 20*time.Second, "another one speaks", func() bool {
		for _, f := range s.Observer.Since(struck) {
			if f.Sender == vip && f.Port != n.Port.Index {
				after[2] = time.Duration(f.At - struck)
				return true
			}
		}
		return false
	})
	must(t, s.StartMember(leader))
	must(t, n.Start())
	return after
}
