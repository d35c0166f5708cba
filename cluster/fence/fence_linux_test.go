package fence

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/kernel"
)

func config(t *testing.T, text string) *cluster.Config {
	t.Helper()
	c, err := cluster.ParseConfig("agent.yaml", []byte("node: n1\ninterface: eth0\naddresses: [{address: 192.0.2.10-192.0.2.12}]\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// machine is a kernel that notes what it is told.
type machine struct {
	set    map[string]int64
	policy string
	fails  error
	// before is what a policy that waits to be confirmed goes back to.
	before  string
	pending bool
	// asked happens while the status is on its way to who has asked.
	asked func()
}

func (m *machine) Apply(s kernel.Source, o kernel.ApplyOptions) (*kernel.Status, error) {
	p, _, err := firewall.Parse(s.Name, s.Text)
	if err != nil {
		return nil, err
	}
	m.before, m.policy, m.pending = m.policy, p.Name, o.Confirm > 0
	return m.Status()
}

func (m *machine) Status() (*kernel.Status, error) {
	s := &kernel.Status{Enforcing: m.policy != "", Policy: m.policy, Interfaces: []kernel.Interface{{Name: "eth0", Guarded: true}, {Name: "eth1", Fault: "no program"}}}
	if asked := m.asked; asked != nil {
		m.asked = nil
		asked()
	}
	return s, nil
}

func (m *machine) AddToSet(_ string, deadline int64, elements ...[]string) error {
	for _, e := range elements {
		m.set[e[0]] = deadline
	}
	return m.fails
}

func (m *machine) DeleteFromSet(_ string, elements ...[]string) (int, error) {
	for _, e := range elements {
		delete(m.set, e[0])
	}
	return len(elements), m.fails
}

func (m *machine) ListSet(string) (list []kernel.Element, err error) {
	for a := range m.set {
		list = append(list, kernel.Element{Text: []string{a}})
	}
	return list, nil
}

func TestPolicy(t *testing.T) {
	const (
		// 192.0.2.10 speaks; 192.0.2.10 behind another hardware address; 192.0.2.99 does.
		vip    = "ffffffffffff02000000000108060001080006040002020000000001c000020affffffffffffc000020a"
		forged = "ffffffffffff02000000000108060001080006040002020000000009c000020affffffffffffc000020a"
		other  = "ffffffffffff02000000000108060001080006040001020000000001c0000263000000000000c000020a"
		probe  = "ffffffffffff0200000000010806000108000604000102000000000100000000000000000000c000020a"
		ip     = "020000000002020000000001080045000014000000004001000bc000020a0a000001"
		otherB = "02000000000202000000000108004500001400000000400100000a0000020a000001"
	)
	for _, c := range []struct {
		name, config string
		open         bool
		passes, not  []string
	}{
		{"shut", "", false, []string{other, probe, ip, otherB}, []string{vip, forged}},
		{"open", "", true, []string{vip, other, probe, ip, otherB}, []string{forged}},
		{"shut, for IP as well", "fence: {ip: true}\n", false, []string{other, probe, otherB}, []string{vip, forged, ip}},
		{"open, for IP as well", "fence: {ip: true}\n", true, []string{vip, other, probe, ip, otherB}, []string{forged}},
	} {
		cfg := config(t, c.config)
		f, err := Raise(&machine{set: map[string]int64{}}, cfg, kernel.Source{Name: "p", Text: Policy(cfg)}, []string{"eth0"})
		if err != nil {
			t.Fatal(err)
		}
		if c.open {
			if err := f.Open(cluster.BootTime()+1e12, netip.MustParseAddr("192.0.2.10")); err != nil {
				t.Fatal(err)
			}
		}
		check := func(frame string, want firewall.Verdict) {
			t.Helper()
			b, err := hex.DecodeString(frame)
			if err != nil {
				t.Fatal(err)
			}
			var p filter.Packet
			p.Decode(b, nil)
			if d := f.Firewall.Classify(&p); d.Verdict != want {
				t.Errorf("%s: %s: %v by %s", c.name, frame, d.Verdict, d.RuleName())
			}
		}
		for _, frame := range c.passes {
			check(frame, firewall.Accept)
		}
		for _, frame := range c.not {
			check(frame, firewall.Drop)
		}
	}
}

func TestRaise(t *testing.T) {
	for _, c := range []struct{ name, policy, iface, want string }{
		{"no set", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\n", "eth0", "no set \"vips\""},
		{"another type", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: mac}}\n", "eth0", "must be of type ipv4"},
		{"elements of its own", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: ipv4, elements: [192.0.2.1]}}\n", "eth0", "have no elements"},
		{"packet sockets alone", "policy: p\nguard: [{interfaces: [eth0]}]\nsets: {vips: {type: ipv4}}\n", "eth0", "must be `senders: all`"},
		{"a pattern alone", "policy: p\nguard: [{interfaces: [\"eth?\"], senders: all}]\nsets: {vips: {type: ipv4}}\n", "eth0", "by this name"},
		{"at tc, which is bypassed", "policy: p\nhook: tc\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: ipv4}}\n", "eth0", "without `hook: tc`"},
		{"a set that is too small", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: ipv4, size: 21}}\n", "eth0", "write 22 or more"},
		{"another interface", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: ipv4}}\n", "eth9", "guards no interface eth9"},
		{"not guarded", "policy: p\nguard: [{interfaces: [eth0], senders: all}]\nsets: {vips: {type: ipv4}}\n", "eth1", "eth1 is not guarded: no program"},
		{"no policy", "x", "eth0", "p:1:1"},
	} {
		_, err := Raise(&machine{}, config(t, ""), kernel.Source{Name: "p", Text: []byte(c.policy)}, []string{c.iface})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestDoor(t *testing.T) {
	m := &machine{set: map[string]int64{}}
	f, err := Raise(m, config(t, ""), kernel.Source{Name: "p", Text: Policy(config(t, ""))}, []string{"eth0"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	own := func() (list []string) {
		f.Firewall.UpdateSet(Set, func(s *firewall.Set) {
			for _, e := range s.List() {
				list = append(list, e.Text)
			}
		})
		slices.Sort(list)
		return list
	}
	until := cluster.BootTime() + 1e12
	if err := f.Open(until, a, b); err != nil || m.set["192.0.2.10"] != until || len(own()) != 2 {
		t.Errorf("open: %v, %v, %v", err, m.set, own())
	}
	if err := f.Open(cluster.BootTime()-1, a); err != nil || len(own()) != 1 {
		t.Errorf("an instant that has passed: %v, %v", err, own())
	}
	if err := f.Shut(b); err != nil || len(m.set) != 1 || len(own()) != 0 {
		t.Errorf("shut: %v, %v, %v", err, m.set, own())
	}
	m.set["192.0.2.12"] = 0
	if err := f.Only(a); err != nil || len(m.set) != 1 || m.set["192.0.2.10"] == 0 {
		t.Errorf("only one: %v, %v", err, m.set)
	}
	// The kernel first: what it refuses does not open the agent's own sockets.
	m.fails = errors.New("no")
	if err := f.Open(until, b); err == nil || len(own()) != 0 {
		t.Errorf("a kernel that refuses: %v, %v", err, own())
	}
	if err := f.Shut(b); err == nil {
		t.Error("a kernel that refuses to shut")
	}
	m.fails = kernel.ErrNothing
	if err := f.Shut(b); err != nil {
		t.Errorf("a fence that is gone: %v", err)
	}
}

func TestCheck(t *testing.T) {
	m := &machine{set: map[string]int64{}}
	f, err := Raise(m, config(t, ""), kernel.Source{Name: "p", Text: Policy(config(t, ""))}, []string{"eth0"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ policy, iface, want string }{
		{"postern-agent", "eth0", ""},
		{"postern-agent", "eth1", "eth1 is not guarded"},
		{"other", "eth0", "put the policy other in force"},
		{"", "eth0", "took the fence away"},
	} {
		m.policy = c.policy
		err := f.Check([]string{c.iface})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestCheckMeanwhile: a policy that takes another's place while it is asked what is in force is no alarm.
func TestCheckMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name     string
		was, now string // in force before and after the question
		then     []string
	}{
		{"after the answer", "a", "b", []string{"b"}},
		{"a trial that is over", "b", "a", []string{"a"}},
	} {
		m := &machine{set: map[string]int64{}, policy: c.was}
		f := &Fence{Kernel: m}
		f.expect(c.was)
		m.asked = func() { m.policy = c.now; f.expect(c.was, c.now); f.expect(c.then...) }
		if err := f.Check([]string{"eth0"}); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		m.asked = func() { f.expect(c.was, c.now); f.expect(c.then...) }
		m.policy = "other"
		if f.Check([]string{"eth0"}) == nil {
			t.Errorf("%s: somebody else's policy is not told", c.name)
		}
	}
}
