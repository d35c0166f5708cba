package clusterpolicy

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster/policy"
)

// TestRefused: what is wrong is told, and changes nothing in force.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, addresses)
	n1, n2 := s.Nodes[0], s.Nodes[1]
	s.start(n1)
	s.put(0, blocking("one", "10.8.9.1"))

	const guard = "policy: p\nguard: [{interfaces: [eth0], senders: all}]\n"
	for _, c := range []struct {
		name, text, want string
		args             []string
	}{
		{"no policy", "polcy: p\n", `did you mean "policy"?`, nil},
		{"a misspelt field", guard + "rules: [{name: a, match: arp.opcod == 1, verdict: drop}]\n", "arp.opcode", nil},
		{"no guard", "policy: p\n", "guards no interface", nil},
		{"its own test fails", guard + "tests: [{name: mine, frame: ffffffffffff0200000000010800, expect: accept}]\n", `its test "mine" fails`, nil},
		{"not on the address's interface", "policy: p\nguard: [{interfaces: [eth9], senders: all}]\n", "eth0 has virtual addresses", nil},
		{"not the kernel's own ARP", "policy: p\nguard: [{interfaces: [eth0]}]\n", "senders: all", nil},
		{"past those that bypass tc", "policy: p\nhook: tc\nguard: [{interfaces: [eth0], senders: all}]\n", "hook: tc", nil},
		{"that lets all pass by audit", guard + "mode: audit\n", "mode: audit", nil},
		{"that writes senders", guard + "rules: [{name: a, verdict: {set: {arp.src.proto_ipv4: 10.8.1.1}}}]\n", "writes a sender's address", nil},
		{"the fence's set with elements", guard + "sets: {vips: {type: ipv4, elements: [10.8.1.1]}}\n", "it is the agent's", nil},
		{"the fence's rule", guard + "rules: [{name: held, verdict: accept}]\n", "the name of one of the fence's", nil},
		{"too many sets", manySets(), "sets", nil},
		{"too large", guard + "# " + strings.Repeat("x", policy.MaxValue) + "\n", "too large for the cluster", nil},
		{"a node that is not there", blocking("two", "10.8.9.2"), "n2 is no node that takes part now: there are [n1]", []string{"--first", "n2"}},
	} {
		if said := s.put(1, c.text, c.args...); !strings.Contains(said, c.want) {
			t.Errorf("%s: %s", c.name, said)
		}
	}
	for _, c := range []struct {
		want int
		says string
		args []string
	}{
		{2, "no number of a version", []string{"get", "x"}},
		{1, "there is no such version: 7", []string{"get", "7"}},
		{1, "there is no such version", []string{"rollback"}},
		{2, "the fence's", []string{"set", "add", "vips", vip}},
		{1, `no set "other"`, []string{"set", "add", "other", vip}},
		{2, "10.8.9.300", []string{"set", "add", "blocked", "10.8.9.300"}},
		{1, "1 of 1 element were not there", []string{"set", "del", "blocked", "10.8.9.9"}},
		{1, "n1: the node is there", []string{"forget", "n1"}},
	} {
		if code, _, said := s.cluster(c.args...); code != c.want || !strings.Contains(said, c.says) {
			t.Errorf("%v: %d %s", c.args, code, said)
		}
	}
	if r := s.status().Rollout; r.Number != 1 {
		t.Fatalf("something was put: %+v", r)
	}

	t.Run("of many at one time, one is put", func(t *testing.T) {
		file := s.file(blocking("two", "10.8.9.2"))
		var mu sync.Mutex
		var puts sync.WaitGroup
		done, told := 0, ""
		for range 4 {
			puts.Go(func() {
				code, _, errs := s.cluster("put", file)
				mu.Lock()
				defer mu.Unlock()
				if code == 0 {
					done++
				} else {
					told += errs
				}
			})
		}
		puts.Wait()
		if done != 1 || strings.Count(told, policy.ErrConflict.Error()) != 3 {
			t.Errorf("%d were put: %s", done, told)
		}
		s.eventually("it is over", func() bool { return s.status().Rollout.Over() })
		s.only("10.8.9.2", "n1")
	})
	t.Run("a second agent of one name", func(t *testing.T) {
		before := s.status().node("n1")
		text, err := os.ReadFile(n1.Config)
		must(t, err)
		must(t, os.WriteFile(n2.Config, []byte(strings.ReplaceAll(string(text), "n1-state", "n2-state")), 0o600))
		must(t, n2.Start())
		if code := n2.Agent.Wait(); code != 1 {
			t.Errorf("exit code %d", code)
		}
		s.says(n2, "another agent has this node's name: n1")
		s.only("10.8.9.2", "n1") // the second one took no policy
		if after := s.status().node("n1"); after.Lease != before.Lease || after.ID != before.ID {
			t.Errorf("%+v", after)
		}
	})
	t.Run("hostile values", func(t *testing.T) { hostile(t, s) })
	t.Run("etcd that is not there", func(t *testing.T) {
		s.Members[0].Kill()
		if code, _, said := s.cluster("status"); code != 3 || !strings.Contains(said, "no etcd server answers") {
			t.Errorf("%d %s", code, said)
		}
		s.only("10.8.9.2", "n1")
	})
}

// hostile puts what nobody's agent would write below the prefix.
func hostile(t *testing.T, s *site) {
	values := map[string]string{
		"cluster/rollout":                            "{",
		"cluster/reports/n1":                         `{"version": -1}`,
		"cluster/reports/../n9":                      `{}`,
		"cluster/reports/evil":                       strings.Repeat("[", 100000),
		"cluster/rollout/driver":                     "\x00\xff",
		"cluster/sets/vips/" + vip:                   "",
		"cluster/sets/addresses/10.8.9.250":          "",
		"cluster/sets/blocked/10.8.9.250,1":          "",
		"cluster/sets/blocked/x\x1b[31m":             "",
		"cluster/sets/blocked/" + longest():          "",
		"cluster/sets/":                              "",
		policy.Numbered(policy.PoliciesKey, 99):      `{"version": 98}`,
		policy.Numbered(policy.OutcomesKey, 2) + "x": "{}",
		"nodes/": "{}",
	}
	var was string
	s.ask(func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, "/postern/cluster/rollout")
		if err != nil || len(r.Kvs) != 1 {
			return fmt.Errorf("the roll-out: %w", err)
		}
		was = string(r.Kvs[0].Value)
		for key, value := range values {
			if _, err := c.Put(ctx, "/postern/"+key, value); err != nil {
				return err
			}
		}
		return nil
	})
	n1 := s.Nodes[0]
	for _, want := range []string{"cluster/rollout: unexpected EOF", "cluster/sets/blocked/x"} {
		s.says(n1, want)
	}
	code, out, _ := s.cluster("status")
	if code != 1 || !strings.Contains(out, "not taken: cluster/rollout: ") || strings.Contains(out, "\x1b") {
		t.Errorf("status: %d %q", code, out)
	}
	if code, _, said := s.cluster("put", s.file(blocking("three", "10.8.9.3"))); code != 3 || !strings.Contains(said, "remove the key (etcdctl del /postern/cluster/rollout)") {
		t.Errorf("put: %d %s", code, said)
	}
	s.says(n1, "set vips is the fence's")
	s.only("10.8.9.2", "n1")
	s.only("10.8.9.3")
	// A roll-out that is sound and names what cannot be had.
	for _, value := range []string{
		strings.Replace(strings.Replace(was, `"stage":"done"`, `"stage":"first"`, 1), `"version":2`, `"version":99`, 1),
		strings.ReplaceAll(was, `"version":2`, `"version":1`), // another text than version 1 has
	} {
		s.ask(func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Put(ctx, "/postern/cluster/rollout", value)
			return err
		})
		s.eventually("the node says why it does not take it", func() bool { a := s.status().node("n1").Attempt; return a != nil && a.Error != "" })
		s.only("10.8.9.2", "n1")
		s.ask(func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Put(ctx, "/postern/cluster/rollout", was)
			return err
		})
		s.eventually("it has what is wanted", func() bool { a := s.status().node("n1").Attempt; return a != nil && a.Error == "" })
	}
	// The key removed: nothing changes, and what is put next goes on from there.
	s.ask(func(ctx context.Context, c *clientv3.Client) error {
		for key := range values {
			if _, err := c.Delete(ctx, "/postern/"+key); err != nil {
				return err
			}
		}
		return nil
	})
	s.only("10.8.9.2", "n1")
	s.put(0, blocking("three", "10.8.9.3"))
	if r := s.status().Rollout; r.Number != 3 {
		t.Errorf("%+v", r)
	}
	s.put(0, blocking("two", "10.8.9.2"))
	if code, out, _ := s.cluster("status"); code != 0 {
		t.Errorf("status: %d %s", code, out)
	}
}

func longest() string { return strings.Repeat("1", 2000) }

// manySets is a policy with more sets than the kernel engine takes.
func manySets() string {
	sets, rules := "", ""
	for i := range 80 {
		sets += fmt.Sprintf(", s%d: {type: ipv4}", i)
		rules += fmt.Sprintf("  - {name: r%d, match: arp.src.proto_ipv4 in @s%d, verdict: drop}\n", i, i)
	}
	return "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {" + sets[2:] + "}\nrules:\n" + rules
}
