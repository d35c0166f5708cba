package afpacket

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// policy puts rules in force, with `default: accept`. A rule without a name is
// named after its place.
func policy(t testing.TB, rules ...*firewall.Rule) *firewall.Firewall {
	t.Helper()
	fw, err := firewall.New(&firewall.Policy{Name: "test", Default: firewall.Accept, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	return fw
}

func expr(t testing.TB, src string) filter.Expr {
	t.Helper()
	e, err := filter.Parse(src, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// set is `field: value`.
func set(t testing.TB, field, value string) firewall.Assignment {
	t.Helper()
	f := filter.Lookup(field)
	c, err := filter.ParseConst(value, f.Type, f.Bits)
	if err != nil {
		t.Fatal(err)
	}
	return firewall.Assignment{Field: f, Value: c.Value}
}

const otherMAC = "02:00:00:00:00:99"

func TestPolicyEffects(t *testing.T) {
	p := newLab(t)
	a := sink(t, p, "a")
	far, tapA := newTap(t, p, 1, p.Ifi[1]), newTap(t, p, 0, a)
	setDst := &firewall.Rule{Name: "set", Action: firewall.ActionSet, Set: []firewall.Assignment{set(t, "eth.dst", otherMAC)}}
	dup := &firewall.Rule{Name: "dup", Action: firewall.ActionDuplicate, Iface: "a"}
	drop := &firewall.Rule{Name: "drop", Action: firewall.ActionDrop}
	rewritten := func(f string) string {
		if strings.HasPrefix(f, "\x02\x00\x00\x00\x00\x99") {
			return "rewritten"
		}
		return "as sent"
	}
	for _, tt := range []struct {
		name    string
		rules   []*firewall.Rule
		blocked string // the rule
		reason  firewall.Reason
		far, a  string
	}{
		{"duplicate", []*firewall.Rule{dup}, "", 0, "as sent", "as sent"},
		{"duplicate and drop", []*firewall.Rule{dup, drop}, "drop", firewall.ReasonRule, "", "as sent"},
		{"duplicate, then set", []*firewall.Rule{dup, setDst}, "", 0, "rewritten", "as sent"},
		{"set, then duplicate", []*firewall.Rule{setDst, dup}, "", 0, "rewritten", "rewritten"},
		{"duplicate twice", []*firewall.Rule{dup, dup}, "", 0, "as sent", "as sent as sent"},
		{"duplicate to nowhere", []*firewall.Rule{{Name: "nowhere", Action: firewall.ActionDuplicate, Iface: "nowhere"}}, "", 0, "as sent", ""},
		{"set what is not there", []*firewall.Rule{{Name: "arp", Action: firewall.ActionSet, Set: []firewall.Assignment{set(t, "arp.src.hw_mac", otherMAC)}}},
			"default", firewall.ReasonUnsendable, "", ""},
		{"forward", []*firewall.Rule{setDst, {Name: "fwd", Action: firewall.ActionForward, Iface: "a"}}, "", 0, "", "rewritten"},
		{"too many effects", []*firewall.Rule{dup, dup, dup, dup, dup, dup, dup, dup, dup}, "dup", firewall.ReasonTooManyEffects, "", ""},
		{"first match", []*firewall.Rule{{Name: "evil", Match: expr(t, "eth.type == 0x88b6"), Action: firewall.ActionDrop}}, "", 0, "as sent", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := conn(t, p, Raw, 0, &Config{Firewall: policy(t, tt.rules...)})
			_, err := c.WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast)
			switch {
			case tt.blocked == "" && err != nil:
				t.Error(err)
			case tt.blocked != "":
				if e := mustBlock(t, err); e.Rule != tt.blocked || e.Reason != tt.reason {
					t.Errorf("rule %q, %v", e.Rule, e.Reason)
				}
			}
			for _, w := range []struct {
				tap  *tap
				want string
			}{{far, tt.far}, {tapA, tt.a}} {
				var got []string
				for _, f := range w.tap.frames() {
					got = append(got, rewritten(f))
				}
				if s := strings.Join(got, " "); s != w.want {
					t.Errorf("arrived %q, want %q", s, w.want)
				}
			}
		})
	}
}

// A copy is classified where it comes out; refused there, the original goes on,
// and the refusal is told.
func TestPolicyDuplicateIsClassified(t *testing.T) {
	p := newLab(t)
	a := sink(t, p, "a")
	far, tapA := newTap(t, p, 1, p.Ifi[1]), newTap(t, p, 0, a)
	var events []Event
	c := conn(t, p, Raw, 0, &Config{
		Firewall: policy(t, &firewall.Rule{Name: "dup", Action: firewall.ActionDuplicate, Iface: "a"}),
		Event:    func(e *Event) { events = append(events, *e) },
	})
	hook(t, p, a, judge(refuseEvil))
	for _, text := range []string{"good", "evil"} {
		if _, err := c.WriteTo(frame(p.Ifi[0].HardwareAddr, text), broadcast); err != nil {
			t.Error(err)
		}
	}
	if f, a := far.texts(), tapA.texts(); f != "good evil" || a != "good" {
		t.Errorf("far %q, a %q", f, a)
	}
	if len(events) != 1 || events[0].Interface != "a" || events[0].Rule != "no-evil" {
		t.Errorf("%+v", events)
	}
}

// What the kernel says of a copy is not the sender's concern either.
func TestPolicyDuplicateIsLost(t *testing.T) {
	p := newLab(t)
	a := sink(t, p, "a")
	in(t, p, 0, func() error {
		link, err := netlink.LinkByIndex(a.Index)
		return errors.Join(err, netlink.LinkSetDown(link))
	})
	far := newTap(t, p, 1, p.Ifi[1])
	c := conn(t, p, Raw, 0, &Config{Firewall: policy(t, &firewall.Rule{Name: "dup", Action: firewall.ActionDuplicate, Iface: "a"})})
	if _, err := c.WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast); err != nil {
		t.Error(err)
	}
	if got := far.texts(); got != "x" {
		t.Errorf("arrived: %q", got)
	}
}

// Later hooks see the frame as it was rewritten.
func TestPolicySetIsSeen(t *testing.T) {
	p := newLab(t)
	hook(t, p, p.Ifi[0], policy(t, &firewall.Rule{Name: "set", Action: firewall.ActionSet, Set: []firewall.Assignment{set(t, "eth.dst", otherMAC)}}))
	hook(t, p, p.Ifi[0], policy(t, &firewall.Rule{Name: "seen", Match: expr(t, "eth.dst == "+otherMAC), Action: firewall.ActionDrop}))
	_, err := conn(t, p, Raw, 0, nil).WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast)
	if e := mustBlock(t, err); e.Rule != "seen" {
		t.Errorf("%+v", e)
	}
}

// Copies of copies are bounded: near, and three times "a" after it.
func TestPolicyDuplicateInCircles(t *testing.T) {
	p := newLab(t)
	a := sink(t, p, "a")
	tapA := newTap(t, p, 0, a)
	dup := policy(t, &firewall.Rule{Name: "dup", Action: firewall.ActionDuplicate, Iface: "a"})
	hook(t, p, a, dup)
	if _, err := conn(t, p, Raw, 0, &Config{Firewall: dup}).WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast); err != nil {
		t.Error(err)
	}
	if got := tapA.texts(); got != "x x x" {
		t.Errorf("a saw %q", got)
	}
}

func TestPolicyMark(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	nft(t, p, "table netdev t { chain c { type filter hook egress device sink priority 0; ether type 0x88b5 meta mark 7 counter; }; }")
	c := connOn(t, p, dev, Raw, 0, &Config{Firewall: policy(t, &firewall.Rule{Name: "mark", Action: firewall.ActionMark, Mark: 7})})
	if _, err := c.WriteTo(frame(dev.HardwareAddr, "x"), broadcast); err != nil {
		t.Error(err)
	}
	if got := nftCounters(t, p); got != "1" {
		t.Errorf("nft counted %s frames with mark 7", got)
	}
}

// The policy knows the interface and the sender.
func TestPolicyMeta(t *testing.T) {
	p := newLab(t)
	refuse := func(match string) *firewall.Firewall {
		return policy(t, &firewall.Rule{Name: "meta", Match: expr(t, match), Action: firewall.ActionDrop})
	}
	for match, want := range map[string]bool{
		`iface.name == "near" && eth.src == iface.mac && sender.uid == 0`: true,
		`iface.name == "far"`: false,
	} {
		_, err := conn(t, p, Raw, 0, &Config{Firewall: refuse(match)}).WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast)
		if (err != nil) != want {
			t.Errorf("%s: %v", match, err)
		}
	}
}

func TestPolicyAllocs(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	for name, fw := range map[string]*firewall.Firewall{
		"accept":  policy(t, &firewall.Rule{Name: "arp", Match: expr(t, "arp.opcode == 2"), Action: firewall.ActionDrop}),
		"effects": policy(t, &firewall.Rule{Name: "mark", Action: firewall.ActionMark, Mark: 7}, &firewall.Rule{Name: "set", Action: firewall.ActionSet, Set: []firewall.Assignment{set(t, "eth.dst", otherMAC)}}),
		"copy":    policy(t, &firewall.Rule{Name: "dup", Action: firewall.ActionDuplicate, Iface: "near"}),
		"forward": policy(t, &firewall.Rule{Name: "fwd", Action: firewall.ActionForward, Iface: "near"}),
	} {
		c := connOn(t, p, dev, Raw, 0, &Config{Firewall: fw})
		f := frame(dev.HardwareAddr, "x")
		n := testing.AllocsPerRun(300, func() {
			if _, err := c.WriteTo(f, broadcast); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 && !raceEnabled {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// A policy is replaced while it is in use: every frame is judged by one of them.
func TestPolicyReplace(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	pol := func(name string) *firewall.Policy {
		return &firewall.Policy{Name: name, Default: firewall.Accept, Rules: []*firewall.Rule{{Name: name, Action: firewall.ActionDrop}}}
	}
	fw, err := firewall.New(pol("old"))
	if err != nil {
		t.Fatal(err)
	}
	c := connOn(t, p, dev, Raw, 0, &Config{Firewall: fw})
	done := make(chan error)
	go func() {
		for i := range 100 {
			if err := fw.Replace(pol([]string{"old", "new"}[i%2])); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
			_, err := c.WriteTo(frame(dev.HardwareAddr, "x"), broadcast)
			var blocked *BlockedError
			if !errors.As(err, &blocked) || blocked.Rule != "old" && blocked.Rule != "new" {
				t.Fatalf("passed between two policies: %v", err)
			}
		}
	}
}
