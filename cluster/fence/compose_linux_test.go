package fence

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/policy"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/kernel"
)

// Frames of which 192.0.2.10 is the sender, and others.
const (
	vipFrame  = "ffffffffffff02000000000108060001080006040002020000000001c000020affffffffffffc000020a"
	vipTagged = "ffffffffffff0200000000018100000508060001080006040002020000000001c000020affffffffffffc000020a"
	vipShort  = "ffffffffffff02000000000108060001080006040002020000000001c000020affffffffffffc00002"
	vipProbe  = "ffffffffffff0200000000010806000108000604000102000000000100000000000000000000c000020a"
	other     = "ffffffffffff02000000000108060001080006040001020000000001c0000263000000000000c000020a"
)

// TestCompose: whatever the policy is, ARP from an address that is not held does not pass, that from one that is held does,
// and the rest is the policy's.
func TestCompose(t *testing.T) {
	const guard = "policy: p\nguard: [{interfaces: [\"eth*\"], senders: all}]\n"
	for _, c := range []struct {
		name, policy  string
		other, probe  firewall.Verdict
		short         firewall.Verdict
		ingressPasses bool
	}{
		{"all passes", guard + "rules: [{name: all, verdict: accept}]\ndefault: accept\n", firewall.Accept, firewall.Accept, firewall.Drop, false},
		{"malformed frames as well", guard + "rules: [{name: all, verdict: accept}]\ndefault: accept\nmalformed: match\n", firewall.Accept, firewall.Accept, firewall.Drop, false},
		{"in one line", `{"policy": "p", "guard": [{"interfaces": ["eth0"], "senders": "all"}], "default": "accept"}`, firewall.Accept, firewall.Accept, firewall.Drop, false},
		{"nothing passes", guard, firewall.Drop, firewall.Accept, firewall.Drop, false},
		{"the set is there", guard + "sets: {vips: {type: ipv4}}\nrules: [{name: all, match: arp.src.proto_ipv4 in @vips, verdict: drop}]\n", firewall.Drop, firewall.Accept, firewall.Drop, false},
		{"what comes in is judged as well", guard + "  # so\ndefault: accept\nrules: []\n", firewall.Accept, firewall.Accept, firewall.Drop, true},
	} {
		text := c.policy
		if c.ingressPasses {
			text = strings.Replace(text, "guard: [", "guard: [{interfaces: [eth0], direction: ingress}, ", 1)
		}
		cfg := config(t, "")
		out, err := Compose(cfg, "p", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		p, _, err := firewall.Parse("composed", out)
		if err != nil {
			t.Fatal(err)
		}
		fw, err := firewall.New(p)
		if err != nil {
			t.Fatal(err)
		}
		verdict := func(frame string, in bool) firewall.Verdict {
			b, _ := hex.DecodeString(frame)
			var packet filter.Packet
			packet.Decode(b, &filter.Meta{Ingress: in})
			return fw.Classify(&packet).Verdict
		}
		for frame, want := range map[string]firewall.Verdict{vipFrame: firewall.Drop, vipTagged: firewall.Drop, vipShort: c.short, other: c.other, vipProbe: c.probe} {
			if got := verdict(frame, false); got != want {
				t.Errorf("%s: %s: %v, want %v", c.name, frame, got, want)
			}
		}
		if c.ingressPasses && verdict(vipFrame, true) != firewall.Accept {
			t.Errorf("%s: another node's announcement does not come in", c.name)
		}
		for _, s := range p.Sets {
			if s.Name == Set {
				e, _ := s.Element("192.0.2.10")
				fw.UpdateSet(Set, func(s *firewall.Set) { s.Add(e) })
			}
		}
		if verdict(vipFrame, false) != firewall.Accept {
			t.Errorf("%s: an address that is held is not announced", c.name)
		}
	}
	// The same policy without the fence lets it out.
	p, _, _ := firewall.Parse("p", []byte(guard+"rules: [{name: all, verdict: accept}]\n"))
	fw, _ := firewall.New(p)
	b, _ := hex.DecodeString(vipFrame)
	var packet filter.Packet
	packet.Decode(b, nil)
	if fw.Classify(&packet).Verdict != firewall.Accept {
		t.Error("the frame would not have passed anyway")
	}
}

// TestComposedGuard: the kernel follows an exact name by itself to an interface that comes later, and not every pattern. So the
// fence's guard stands there by exact names, whatever pattern the policy has, and where the policy's is the same it is not said twice.
func TestComposedGuard(t *testing.T) {
	all := func(hook firewall.Hook, names ...string) firewall.Guard {
		return firewall.Guard{Interfaces: names, AllSenders: true, Hook: hook}
	}
	const hook = "policy: p\nhook: tc\nguard:\n  - {interfaces: [\"eth*\"], senders: all, hook: gate}\n"
	for _, c := range []struct {
		name, policy string
		want         []firewall.Guard
	}{
		{"the exact name", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\n", []firewall.Guard{all(0, "eth0")}},
		{"among others", "policy: p\nguard: [{interfaces: [\"veth*\", eth0], senders: all}]\n", []firewall.Guard{all(0, "veth*", "eth0")}},
		{"a prefix", "policy: p\nguard: [{interfaces: [\"eth*\"], senders: all}]\n", []firewall.Guard{all(0, "eth*"), all(0, "eth0")}},
		{"a pattern", "policy: p\nguard: [{interfaces: [\"eth?\"], senders: all}]\n", []firewall.Guard{all(0, "eth?"), all(0, "eth0")}},
		{"the exact name for packet sockets alone", "policy: p\nguard: [{interfaces: [eth0]}, {interfaces: [\"eth?\"], senders: all}]\n",
			[]firewall.Guard{{Interfaces: []string{"eth0"}}, all(0, "eth?"), all(0, "eth0")}},
		{"the exact name at tc", "policy: p\nguard: [{interfaces: [eth0], senders: all, hook: tc}, {interfaces: [\"eth?\"], senders: all}]\n",
			[]firewall.Guard{all(firewall.HookTC, "eth0"), all(0, "eth?"), all(0, "eth0")}},
		{"at the gate, in a policy at tc", hook, []firewall.Guard{all(firewall.HookGate, "eth*"), all(firewall.HookGate, "eth0")}},
		{"at the gate and as it comes", "policy: p\nguard: [{interfaces: [eth0], senders: all}, {interfaces: [\"eth*\"], senders: all, hook: gate}]\n",
			[]firewall.Guard{all(0, "eth0"), all(firewall.HookGate, "eth*"), all(firewall.HookGate, "eth0")}},
	} {
		out, err := Compose(config(t, ""), "p", []byte(c.policy))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		p, _, err := firewall.Parse("composed", out)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p.Guard, c.want) {
			t.Errorf("%s: guards %v, want %v", c.name, p.Guard, c.want)
		}
	}
}

func TestComposable(t *testing.T) {
	const guard = "policy: p\nguard: [{interfaces: [eth0], senders: all}]\n"
	for _, c := range []struct{ name, policy, want string }{
		{"another interface", "policy: p\nguard: [{interfaces: [eth1], senders: all}]\n", "eth0 has virtual addresses"},
		{"packet sockets", "policy: p\nguard: [{interfaces: [eth0]}]\n", "senders: all"},
		{"what comes in", "policy: p\nguard: [{interfaces: [eth0], direction: ingress}]\n", "senders: all"},
		{"at tc, which is bypassed", guard + "hook: tc\n", "hook: tc"},
		{"audit", guard + "mode: audit\n", "mode: audit"},
		{"a sender that is written", guard + "rules: [{name: a, verdict: {set: {arp.src.proto_ipv4: 192.0.2.10}}}]\n", "writes a sender's address"},
		{"elements of the set", guard + "sets: {vips: {type: ipv4, elements: [192.0.2.10]}}\n", "it is the agent's"},
		{"a set that is too small", guard + "sets: {vips: {type: ipv4, size: 1}}\n", "write 22 or more"},
		{"another set of the fence", guard + "sets: {addresses: {type: ipv4}}\n", "the name of one of the fence's"},
		{"a rule of the fence", guard + "rules: [{name: held, verdict: accept}]\n", "the name of one of the fence's"},
		{"another one", guard + "rules: [{name: probe, verdict: accept}]\n", "the name of one of the fence's"},
	} {
		_, err := Compose(config(t, ""), "p", []byte(c.policy))
		if !errors.Is(err, ErrNoFence) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Compose(config(t, ""), "p", []byte("x")); err == nil || errors.Is(err, ErrNoFence) {
		t.Errorf("no policy: %v", err)
	}
}

func (m *machine) Confirm() error { m.pending = false; return m.fails }
func (m *machine) Rollback() error {
	if !m.pending {
		return kernel.ErrNotPending
	}
	m.pending, m.policy = false, m.before
	return nil
}
func (m *machine) Flush() error                  { m.policy = ""; return nil }
func (m *machine) Rules() ([]kernel.Rule, error) { return nil, nil }

// TestEnforcer: the fence knows which policies may be in force beside its own, and holds through all of it.
func TestEnforcer(t *testing.T) {
	m := &machine{set: map[string]int64{}}
	cfg := config(t, "")
	f, err := RaiseWith(m, cfg, nil, []string{"eth0"})
	if err != nil {
		t.Fatal(err)
	}
	e := &Enforcer{Machine: m, Config: cfg, Fence: f}
	e.Began(nil)
	fenced := func(when, policy string) {
		t.Helper()
		if err := f.Check([]string{"eth0"}); err != nil || m.policy != policy {
			t.Errorf("%s: %v, %s is in force", when, err, m.policy)
		}
	}
	v := &policy.Version{Number: 1, Text: "policy: p\nguard: [{interfaces: [eth0], senders: all}]\n"}
	fenced("at first", "postern-agent")
	if err := f.Open(cluster.BootTime()+1e12, netip.MustParseAddr("192.0.2.10")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"a trial", func() error { return e.Apply(v, time.Second) }, "p"},
		{"back", e.Rollback, "postern-agent"},
		{"a trial again", func() error { return e.Apply(v, time.Second) }, "p"},
		{"the kernel went back", func() error { return m.Rollback() }, "postern-agent"},
		{"which is learnt", func() error { _ = e.Rollback(); return nil }, "postern-agent"},
		{"a third trial", func() error { return e.Apply(v, time.Second) }, "p"},
		{"which is kept", e.Confirm, "p"},
		{"none", func() error { return e.Apply(nil, 0) }, "postern-agent"},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		fenced(step.name, step.want)
	}
	if err := e.Apply(&policy.Version{Number: 2, Text: "policy: q\nguard: [{interfaces: [eth1], senders: all}]\n"}, time.Second); !errors.Is(err, ErrNoFence) {
		t.Errorf("one that is no fence: %v", err)
	}
	fenced("one that is refused", "postern-agent")
	m.policy = "other"
	if f.Check([]string{"eth0"}) == nil {
		t.Error("somebody else's policy is not told")
	}
}
