package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/bpffs"
)

// nameReader is a directory that the reader of the events locks.
const nameReader = "reader"

// Monitor calls fn with each event, from those on that the kernel has kept, until the context ends or fn
// returns an error. It follows the policies that take each other's place. It fails with ErrBusy
// while another process reads, and with ErrNothing.
func (h Host) Monitor(ctx context.Context, fn func(*Event) error) error {
	dir, err := h.directory()
	if err != nil {
		return err
	}
	m := &monitor{Host: h, rules: map[uint32][]string{}, interfaces: answers[int]{}, cgroups: answers[uint64]{}}
	defer m.close()
	if err := m.open(); err != nil {
		return err
	}
	lock, err := bpffs.Open(dir+"/"+nameReader, true)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	for {
		err := m.read(ctx, fn)
		if err == nil {
			err = m.open() // the policy may have got another ring buffer
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// monitor is a reader of events.
type monitor struct {
	Host
	engine *bpf.Engine
	events *bpf.Events
	// rules are names, by generation.
	rules      map[uint32][]string
	interfaces answers[int]
	cgroups    answers[uint64]
}

func (m *monitor) close() {
	if m.events != nil {
		m.events.Close()
	}
	m.engine.Close()
}

// open opens the ring buffer of what is in force.
func (m *monitor) open() error {
	return m.use(func(_ *session, st state) error {
		same, err := m.engine.SameEvents(st.current.engine)
		if err != nil {
			return err
		}
		if !same {
			clear(m.rules) // generations may be counted anew
		}
		for _, g := range []*generation{st.current, st.before} {
			if err := m.learn(g); err != nil {
				return err
			}
		}
		if same {
			return nil
		}
		engine, err := bpf.Open(st.current.dir, st.current.Layout)
		if err != nil {
			return err
		}
		m.close()
		m.engine = engine
		m.events, err = engine.Events()
		return err
	})
}

func (m *monitor) learn(g *generation) error {
	if g == nil || m.rules[uint32(g.Generation)] != nil {
		return nil
	}
	p, err := g.parse()
	if err != nil {
		return err
	}
	names := []string{}
	for _, r := range p.Rules {
		names = append(names, r.Name)
	}
	m.rules[uint32(g.Generation)] = names
	return nil
}

// read hands events on for a while.
func (m *monitor) read(ctx context.Context, fn func(*Event) error) error {
	m.events.SetDeadline(time.Now().Add(200 * time.Millisecond))
	var ev bpf.Event
	for ctx.Err() == nil {
		err := m.events.Read(&ev)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.rules[ev.Generation] == nil {
			if err := m.open(); err != nil && !errors.Is(err, ErrNothing) {
				return err
			}
		}
		if err := fn(m.event(&ev)); err != nil {
			return err
		}
	}
	return nil
}

func (m *monitor) event(ev *bpf.Event) *Event {
	out := &Event{Time: time.Now().Add(time.Duration(ev.Time - bootTime())), Verdict: ev.Verdict, Reason: ev.Reason, Rule: "default", Audited: ev.Audited,
		Index: ev.Ifindex, Len: ev.Len, Frame: ev.Frame, HasSender: ev.HasSender, Sender: ev.Sender, Cookie: ev.Cookie}
	switch names := m.rules[ev.Generation]; {
	case ev.Reason.Malformed():
		out.Rule = "malformed"
	case ev.RuleIndex >= 0 && ev.RuleIndex < len(names):
		out.Rule = names[ev.RuleIndex]
	case ev.Reason == firewall.ReasonRule:
		out.Rule = fmt.Sprintf("rule %d of generation %d", ev.RuleIndex+1, ev.Generation)
	}
	out.Interface = m.interfaces.get(ev.Ifindex, m.name)
	if ev.HasSender {
		out.Sender.Cgroup = m.cgroups.get(ev.Cgroup, cgroupPath)
	}
	return out
}

// answers are what the kernel said of interfaces or cgroups, each believed for a second: asking takes ten times as long
// as all else, and a flood of refusals asks the same again and again.
type answers[K comparable] map[K]answer

type answer struct {
	text  string
	until time.Time
}

// get asks where it has to.
func (a answers[K]) get(key K, ask func(K) string) string {
	now := time.Now()
	if was, ok := a[key]; ok && now.Before(was.until) {
		return was.text
	}
	if len(a) >= 4096 {
		clear(a)
	}
	text := ask(key)
	a[key] = answer{text, now.Add(time.Second)}
	return text
}

// name is an interface's; it may be gone.
func (m *monitor) name(index int) string {
	name := fmt.Sprintf("#%d", index)
	h, err := m.rtnetlink()
	if err != nil {
		return name
	}
	defer h.Close()
	if l, err := h.LinkByIndex(index); err == nil {
		name = l.Attrs().Name
	}
	return name
}
