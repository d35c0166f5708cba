package clusterpolicy

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/integration/fence"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
)

// TestRollOut is the life of a cluster's policy on three nodes that have a virtual address as well.
func TestRollOut(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, addresses)
	n1, n2, n3 := s.Nodes[0], s.Nodes[1], s.Nodes[2]
	withoutCgroup2(s, n2)
	s.start(n1, n2, n3)
	s.eventually("somebody announces the address", func() bool { return s.speaker(0) != nil })

	t.Run("all nodes take it", func(t *testing.T) {
		s.only("10.8.9.1")
		said := s.put(0, blocking("one", "10.8.9.1"), "--comment", "the first", "--first", "n2")
		for _, want := range []string{"n2 tries it", "n2 has it, 2 others try it", "all have it"} {
			if !strings.Contains(said, want) {
				t.Errorf("put does not say %q: %s", want, said)
			}
		}
		s.only("10.8.9.1", "n1", "n2", "n3")
		st := s.status()
		for _, n := range st.Nodes {
			if n.Number != 1 || n.Trial != 0 || len(n.Interfaces) != 1 || n.Interfaces[0].Hook != "gate" || n.Counters.Rules == 0 {
				t.Errorf("%+v", n)
			}
		}
		s.fenced(nil)
	})
	t.Run("one that accepts everything does not open the fence", func(t *testing.T) {
		open := "policy: open\nguard: [{interfaces: [eth0], senders: all}]\nrules:\n  - {name: all, verdict: accept}\ndefault: accept\nmalformed: match\n"
		s.put(0, open)
		s.only("10.8.9.1")
		s.fenced(func(n *fence.Node) {
			// Without the fence before it the same policy lets the frame out.
			_, err := n.Host().Apply(kernel.Source{Name: "open", Text: []byte(open)}, kernel.ApplyOptions{})
			must(t, err)
			if !s.gets(n, vip) {
				t.Error("without the fence the frame would not have got out either")
			}
		})
		s.put(0, blocking("one", "10.8.9.1"))
		s.fenced(nil)
	})
	t.Run("one that a node's kernel cannot enforce", func(t *testing.T) {
		good := s.status().Rollout.Good
		said := s.put(1, blocking("two", "10.8.9.2")+"seal: "+cgroup(t)+"\n", "--first", "n1")
		if !strings.Contains(said, "n2: ") || !strings.Contains(said, "not a cgroup v2") {
			t.Errorf("the cause: %s", said)
		}
		s.goneBack(good.Number)
		s.only("10.8.9.2")
		s.only("10.8.9.1", "n1", "n2", "n3")
		if _, out, _ := s.cluster("history"); !strings.Contains(out, "failed: n2: ") || !strings.Contains(out, "the first") {
			t.Errorf("history: %s", out)
		}
		s.fenced(nil)
	})
	t.Run("one that cuts the first node off from etcd", func(t *testing.T) {
		good := s.status().Rollout.Good
		cut := strings.Replace(blocking("cut", "10.8.9.3"), "[eth0]", "[eth0, etcd0]", 1)
		cut = strings.Replace(cut, "rules:\n", "rules:\n  - {name: no-etcd, match: ip.dst == 10.9.0.101, verdict: drop}\n", 1)
		said := s.put(1, cut, "--first", "n3")
		if !strings.Contains(said, "n3: etcd was not reached through it") {
			t.Errorf("the cause: %s", said)
		}
		s.goneBack(good.Number)
		s.only("10.8.9.3")
		s.only("10.8.9.1", "n1", "n2", "n3")
	})
	t.Run("the driver dies in the middle, and comes back later", func(t *testing.T) {
		driver := s.driver()
		var first, other *fence.Node
		for _, n := range s.Nodes {
			switch {
			case n.Name == driver:
			case first == nil:
				first = n
			default:
				other = n
			}
		}
		if code, _, errs := s.cluster("put", s.file(blocking("four", "10.8.9.4")), "--first", first.Name); code != 0 {
			t.Fatal(errs)
		}
		s.eventually("the first node tries it", func() bool { return s.status().node(first.Name).Trial != 0 || s.status().Rollout.Stage != "put" })
		dead := s.named(driver)
		dead.Agent.Kill()
		s.eventually("another one drives it to its end", func() bool { return s.status().Rollout.Over() })
		if r := s.status().Rollout; r.Stage != "done" || r.Good != r.ID {
			t.Fatalf("%+v", r)
		}
		if s.driver() == driver {
			t.Error("the dead one is the driver")
		}
		// What the dead one's kernel enforces has outlived it.
		s.only("10.8.9.4", first.Name, other.Name)
		if s.status().node(driver).Present {
			t.Error("the dead one is there")
		}
		s.start(dead)
		s.eventually("it takes what it has missed", func() bool { n := s.status().node(driver); return n.Number == s.status().Rollout.Number })
		s.only("10.8.9.4", "n1", "n2", "n3")
	})
	t.Run("back to a version before", func(t *testing.T) {
		if code, out, errs := s.cluster("rollback", "1", "--wait"); code != 0 {
			t.Fatalf("%d: %s%s", code, out, errs)
		}
		s.only("10.8.9.1", "n1", "n2", "n3")
		s.only("10.8.9.4")
		if code, out, errs := s.cluster("rollback", "--wait"); code != 0 {
			t.Fatalf("%d: %s%s", code, out, errs)
		}
		s.only("10.8.9.4", "n1", "n2", "n3")
		if code, out, _ := s.cluster("status"); code != 0 {
			t.Errorf("status: %d\n%s", code, out)
		}
	})
}

// speaker is who spoke for the address since an instant.
func (s *site) speaker(since int64) (who *fence.Node) {
	for _, f := range s.Observer.Since(since) {
		if f.Sender == netip.MustParseAddr(vip) {
			who = s.named(s.NodeOf(f.Port))
		}
	}
	return who
}

func (s *site) named(name string) *fence.Node {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// fenced fails if a node that does not hold the address can send for it, or nobody does. unfenced shows that it could
// without the fence.
func (s *site) fenced(unfenced func(*fence.Node)) {
	s.t.Helper()
	began := cluster.BootTime()
	s.eventually("the address is announced", func() bool { return s.speaker(began) != nil })
	holder := s.speaker(began)
	for _, n := range s.Nodes {
		if n != holder && s.gets(n, vip) && s.speaker(began) == holder {
			s.t.Errorf("%s speaks for the address that %s holds", n.Name, holder.Name)
		}
		if n != holder && unfenced != nil {
			unfenced(n)
			unfenced = nil
		}
	}
}

// goneBack waits until all nodes have the version before.
func (s *site) goneBack(version uint64) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("all have version %d", version), func() bool {
		st := s.status()
		for _, n := range st.Nodes {
			if n.Number != version || n.Trial != 0 {
				return false
			}
		}
		return st.Rollout.Good.Number == version
	})
}

func (s *site) driver() (name string) {
	s.t.Helper()
	s.ask(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/postern/cluster/rollout/driver")
		if err == nil && len(r.Kvs) > 0 {
			name = string(r.Kvs[0].Value)
		}
		return err
	})
	return name
}

// withoutCgroup2 is a node on which no cgroup2 is mounted, so that nothing can be sealed there.
func withoutCgroup2(s *site, n *fence.Node) {
	s.t.Helper()
	wrapper := filepath.Join(s.Dir, "postern-"+n.Name)
	script := "#!/bin/sh\nif grep -q '^node: " + n.Name + "$' \"$3\" 2>/dev/null; then\n" +
		"\twhile read -r _ at type _; do [ \"$type\" = cgroup2 ] && umount -l \"$at\"; done </proc/self/mounts\nfi\nexec " + s.Postern + " \"$@\"\n"
	must(s.t, os.WriteFile(wrapper, []byte(script), 0o700))
	s.Postern = wrapper
}

// cgroup makes one.
func cgroup(t *testing.T) string {
	mounts, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			dir, err := os.MkdirTemp(f[1], "postern-test-")
			must(t, err)
			t.Cleanup(func() {
				for range 50 {
					if os.Remove(dir) == nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
			return dir
		}
	}
	labtest.Cannot(t, "needs a cgroup2 mount")
	return ""
}
