package afpacket

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// note is a classifier that writes down what it sees, then asks another.
func note(log *[]string, at string, c Classifier) judge {
	return func(p *filter.Packet) firewall.Decision {
		_, text, _ := strings.Cut(string(p.Bytes(filter.LayerFrame)), "test:")
		text, _, _ = strings.Cut(text, ".")
		*log = append(*log, fmt.Sprintf("%s@%s:%s", at, p.Meta().Iface, text))
		return c.Classify(p)
	}
}

func (p *pathLab) logged() string {
	s := strings.Join(p.log, " ")
	p.log = nil
	return s
}

// pathLab is a Conn on "near" and two sinks, "a" and "b".
type pathLab struct {
	log  []string
	c    *Conn
	near *net.Interface
	a, b *net.Interface
	taps map[string]*tap
}

func TestPath(t *testing.T) {
	p := newLab(t)
	l := &pathLab{near: p.Ifi[0], a: sink(t, p, "a"), b: sink(t, p, "b")}
	l.taps = map[string]*tap{"far": newTap(t, p, 1, p.Ifi[1]), "a": newTap(t, p, 0, l.a), "b": newTap(t, p, 0, l.b)}
	var events []Event
	l.c = conn(t, p, Raw, 0, &Config{Firewall: note(&l.log, "own", judge(accept)), Event: func(e *Event) { events = append(events, *e) }})
	send := func(text string) error {
		_, err := l.c.WriteTo(frame(l.near.HardwareAddr, text), broadcast)
		return err
	}
	arrived := func(want map[string]string) {
		t.Helper()
		for name, tap := range l.taps {
			if got := tap.texts(); got != want[name] {
				t.Errorf("%s saw %q, want %q", name, got, want[name])
			}
		}
	}

	t.Run("order", func(t *testing.T) {
		h1, h2 := hook(t, p, l.near, note(&l.log, "1", judge(accept))), hook(t, p, l.near, note(&l.log, "2", judge(refuseEvil)))
		lowerHook(t, p, l.near, func(f *Frame) (firewall.Verdict, string) {
			l.log = append(l.log, "lower")
			return firewall.Accept, ""
		})
		if err := send("x"); err != nil {
			t.Error(err)
		}
		if got := l.logged(); got != "own@near:x 1@near:x 2@near:x lower" {
			t.Error(got)
		}
		mustBlock(t, send("evil"))
		if got := l.logged(); got != "own@near:evil 1@near:evil 2@near:evil" {
			t.Error(got)
		}
		h1.Detach()
		h2.Detach()
		h2.Detach() // detaching twice is harmless
		if err := send("evil"); err != nil {
			t.Error(err)
		}
		if got := l.logged(); got != "own@near:evil lower" {
			t.Error(got)
		}
		arrived(map[string]string{"far": "x evil"})
	})

	t.Run("forward is classified again", func(t *testing.T) {
		hook(t, p, l.near, forwardTo("a"))
		hook(t, p, l.near, note(&l.log, "never", judge(accept)))
		hook(t, p, l.a, note(&l.log, "hook", judge(refuseEvil)))
		if err := send("x"); err != nil {
			t.Error(err)
		}
		if e := mustBlock(t, send("evil")); e.Interface != "a" || e.Rule != "no-evil" {
			t.Errorf("%+v", e)
		}
		if got := l.logged(); got != "own@near:x hook@a:x own@near:evil hook@a:evil" {
			t.Error(got)
		}
		arrived(map[string]string{"a": "x"})
	})

	t.Run("forward to nowhere", func(t *testing.T) {
		for _, name := range []string{"nowhere", "", "a-name-that-is-too-long-for-linux"} {
			h := hook(t, p, l.near, forwardTo(name))
			if e := mustBlock(t, send("x")); e.Reason != firewall.ReasonUnsendable || e.Rule != "away" || e.Interface != "near" {
				t.Errorf("%q: %+v", name, e)
			}
			h.Detach()
		}
		arrived(nil)
	})

	t.Run("forward in circles", func(t *testing.T) {
		l.logged()
		hook(t, p, l.near, forwardTo("a"))
		hook(t, p, l.a, note(&l.log, "hook", forwardTo("b")))
		hook(t, p, l.b, note(&l.log, "hook", forwardTo("near")))
		if e := mustBlock(t, send("x")); e.Reason != firewall.ReasonRecursion {
			t.Errorf("%+v", e)
		}
		// near, a, b, near: the third nested transmission was the last.
		if got := l.logged(); got != "own@near:x hook@a:x hook@b:x own@near:x" {
			t.Error(got)
		}
		arrived(nil)
	})

	t.Run("the lower layer's redirect is not classified", func(t *testing.T) {
		lowerHook(t, p, l.near, func(f *Frame) (firewall.Verdict, string) { return firewall.Forward, "a" })
		hook(t, p, l.a, note(&l.log, "hook", judge(refuseEvil)))
		lowerHook(t, p, l.a, func(f *Frame) (firewall.Verdict, string) {
			l.log = append(l.log, "lower@a")
			return firewall.Accept, ""
		})
		if err := send("evil"); err != nil {
			t.Error(err)
		}
		if got := l.logged(); got != "own@near:evil lower@a" {
			t.Error(got)
		}
		arrived(map[string]string{"a": "evil"})
	})

	t.Run("the lower layer drops and rewrites", func(t *testing.T) {
		lowerHook(t, p, l.near, func(f *Frame) (firewall.Verdict, string) {
			if i := strings.Index(string(f.Bytes), "old"); i >= 0 {
				copy(f.Bytes[i:], "new")
				return firewall.Accept, ""
			}
			return firewall.Drop, ""
		})
		if err := send("old"); err != nil {
			t.Error(err)
		}
		if e := mustBlock(t, send("x")); e.Rule != "lower layer" {
			t.Errorf("%+v", e)
		}
		l.logged()
		arrived(map[string]string{"far": "new"})
	})

	t.Run("log", func(t *testing.T) {
		events = nil
		hook(t, p, l.near, judge(func(p *filter.Packet) firewall.Decision {
			return firewall.Decision{Outcome: firewall.Outcome{Verdict: firewall.Accept, Reason: firewall.ReasonRule}, Rule: &firewall.Rule{Name: "seen", Log: true}}
		}))
		hook(t, p, l.near, judge(func(p *filter.Packet) firewall.Decision {
			return firewall.Decision{Outcome: firewall.Outcome{Verdict: firewall.Accept, Reason: firewall.ReasonRule, Audited: true}, Rule: noEvil}
		}))
		if err := send("x"); err != nil {
			t.Error(err)
		}
		if len(events) != 2 || events[0].Rule != "seen" || events[0].Verdict != firewall.Accept || !events[1].Audited || events[1].Frame == "" {
			t.Errorf("%+v", events)
		}
		l.logged()
		arrived(map[string]string{"far": "x"})
	})
	if n := active.Load(); n != 0 {
		t.Errorf("%d hooks are left", n)
	}
	l.c.Close()
	if m := registry.devices.Load(); len(*m) != 0 {
		t.Errorf("devices are left: %v", *m)
	}
}

// Hooks of a device do not touch one with the same index in another namespace.
func TestHooksStayInTheirNamespace(t *testing.T) {
	p := newLab(t)
	if p.Ifi[0].Index != p.Ifi[1].Index {
		t.Fatalf("the indexes differ: %d, %d", p.Ifi[0].Index, p.Ifi[1].Index)
	}
	var h *Hook
	in(t, p, 1, func() (err error) { h, err = Attach(p.Ifi[1], judge(refuseEvil)); return err })
	defer h.Detach()
	if _, err := conn(t, p, Raw, 0, nil).WriteTo(frame(p.Ifi[0].HardwareAddr, "evil"), broadcast); err != nil {
		t.Error(err)
	}
}

func TestBatch(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	c := conn(t, p, Raw, 0, &Config{Firewall: judge(refuseEvil)})
	var ms []Message
	var want []string
	for i := range 150 {
		text := fmt.Sprint(i)
		if i%7 == 3 {
			text = "evil"
		} else if i != 100 && i != 101 {
			want = append(want, text)
		}
		ms = append(ms, Message{Bytes: frame(p.Ifi[0].HardwareAddr, text), Addr: broadcast})
	}
	ms[100].Addr = nil
	ms[101].Bytes = make([]byte, 1515) // classified, then refused by the kernel
	n, err := c.WriteBatch(ms)
	if n != len(want) || err == nil || err != ms[3].Err {
		t.Errorf("%d of %d, %v", n, len(want), err)
	}
	for i, m := range ms {
		switch {
		case i == 100:
			if !strings.Contains(fmt.Sprint(m.Err), "invalid argument") {
				t.Errorf("%d: %v", i, m.Err)
			}
		case i == 101:
			if !strings.Contains(fmt.Sprint(m.Err), "message too long") {
				t.Errorf("%d: %v", i, m.Err)
			}
		case i%7 == 3:
			mustBlock(t, m.Err)
		case m.Err != nil:
			t.Errorf("%d: %v", i, m.Err)
		}
	}
	if got := far.texts(); got != strings.Join(want, " ") {
		t.Errorf("arrived: %s", got)
	}
	if n, err := c.WriteBatch(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

func TestBypass(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	for _, typ := range []Type{Raw, Datagram} {
		c := conn(t, p, typ, testType, &Config{Firewall: judge(refuseEvil), Bypass: true})
		var on int
		err := control(c.fd, func(fd int) (err error) {
			on, err = unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS)
			return err
		})
		if on != 1 || err != nil {
			t.Errorf("PACKET_QDISC_BYPASS is %d, %v", on, err)
		}
		for _, text := range []string{"good", "evil"} {
			b := frame(p.Ifi[0].HardwareAddr, text)
			if typ == Datagram {
				b = b[14:]
			}
			if _, err := c.WriteTo(b, broadcast); (err != nil) != (text == "evil") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
	if got := far.texts(); got != "good good" {
		t.Errorf("arrived: %s", got)
	}
}

// The kernel's own hook sees the frame's type and its header, whatever protocol
// the Conn was opened for.
func TestNoLieToTheKernel(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	nft(t, p, "table netdev t { chain c { type filter hook egress device sink priority 0; ether type 0x88b5 meta protocol 0x88b5 counter; }; }")
	f := frame(dev.HardwareAddr, "x")
	for _, bypass := range []bool{false, true} {
		cfg := &Config{Bypass: bypass}
		raw, dgram := connOn(t, p, dev, Raw, unix.ETH_P_ARP, cfg), connOn(t, p, dev, Datagram, testType, cfg)
		r := ring(t, p, dev, 32, cfg)
		_, err1 := raw.WriteTo(f, broadcast)
		_, err2 := dgram.WriteTo(f[14:], broadcast)
		_, err3 := raw.WriteBatch([]Message{{Bytes: f, Addr: broadcast}, {Bytes: f, Addr: broadcast}})
		_, err4 := r.Write(f)
		if err := errors.Join(err1, err2, err3, err4, r.Flush()); err != nil {
			t.Error(err)
		}
	}
	if got := nftCounters(t, p); got != "10" {
		t.Errorf("nft believed %s of 10 frames", got)
	}
}

// TestBackHome: what comes out again at the sender's own interface meets its own
// firewall again.
func TestBackHome(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	for _, verdict := range []string{"{duplicate: near}", "{forward: near}"} {
		policy, _, err := firewall.Parse("p", []byte("policy: p\nrules:\n"+
			"  - {name: round, match: 'frame.len > 0', verdict: "+verdict+"}\n"+
			"  - {name: no, match: 'frame.len > 0', verdict: drop}\n"))
		if err != nil {
			t.Fatal(err)
		}
		fw, err := firewall.New(policy)
		if err != nil {
			t.Fatal(err)
		}
		c := conn(t, p, Raw, 0, &Config{Firewall: fw})
		if _, err = c.WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("%s: %v", verdict, err)
		}
		if got := far.texts(); len(got) != 0 {
			t.Errorf("%s: %q got out", verdict, got)
		}
	}
}
