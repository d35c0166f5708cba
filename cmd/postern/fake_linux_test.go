package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/bpffs"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/seal"
)

// fake is a kernel.Host without a kernel: it believes what it is told, and guards the
// interfaces that a policy names.
type fake struct {
	mu     sync.Mutex
	status kernel.Status
	policy *firewall.Policy
	before *firewall.Policy
	sets   map[string][]kernel.Element
	// ends are the elements' deadlines, as they were given.
	ends map[string]int64
	// refuses is the error of every method.
	refuses   error
	diagnosis kernel.Diagnosis
	events    chan *kernel.Event
	applied   int
	following chan struct{}
}

// The fake's clocks stand still.
var fakeNow = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

const fakeBegan = int64(1000 * time.Second)

func newFake() *fake {
	return &fake{events: make(chan *kernel.Event, 1000), following: make(chan struct{}, 1)}
}

// around has a command find the fake instead of this machine.
func (f *fake) around(sockets string) func(*term) {
	return func(t *term) {
		t.machine = machine{host: f, sockets: sockets, began: fakeBegan, now: func() time.Time { return fakeNow }}
	}
}

const fakeCookie = 4711

func (f *fake) Cookie() (uint64, error) { return fakeCookie, nil }

func (f *fake) Apply(src kernel.Source, o kernel.ApplyOptions) (*kernel.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuses != nil {
		return nil, f.refuses
	}
	p, _, err := firewall.Parse(src.Name, src.Text)
	if err != nil {
		return nil, err
	}
	if _, err := bpf.Compile(firewall.Compile(p), bpf.Options{}); err != nil {
		return nil, fmt.Errorf("%s: %w", src.Name, err)
	}
	f.applied++
	was, seals := f.status, f.status.Seals
	f.before, f.policy, f.sets, f.ends = f.policy, p, map[string][]kernel.Element{}, map[string]int64{}
	f.status = kernel.Status{Enforcing: true, Policy: p.Name, File: src.Name, Generation: was.Generation + 1, Since: fakeNow.Add(-90 * time.Minute), Seals: seals}
	if o.Confirm > 0 {
		f.status.Pending = &kernel.Pending{Deadline: fakeNow.Add(o.Confirm), Before: was.Policy}
	}
	for _, g := range p.Guard {
		for i, name := range g.Interfaces {
			f.status.Interfaces = append(f.status.Interfaces, kernel.Interface{Name: name, Index: i + 2, Direction: "egress",
				Senders: "packet-sockets", Hook: "gate", Guarded: true})
		}
	}
	for _, d := range p.Sets {
		for _, e := range d.Elements {
			f.sets[d.Name] = append(f.sets[d.Name], kernel.Element{Text: strings.Split(e.Text, ", "), Declared: true})
		}
	}
	s := f.status
	return &s, nil
}

func (f *fake) nothing() error {
	if f.refuses == nil && f.policy == nil {
		return kernel.ErrNothing
	}
	return f.refuses
}

func (f *fake) Confirm() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuses == nil && f.status.Pending == nil {
		return kernel.ErrNotPending
	}
	f.status.Pending = nil
	return f.refuses
}

func (f *fake) Rollback() error {
	if err := f.Confirm(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.policy = f.before; f.policy == nil {
		f.status = kernel.Status{}
		return nil
	}
	f.status.Policy = f.policy.Name
	return nil
}

func (f *fake) Flush() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuses == nil {
		f.policy, f.status = nil, kernel.Status{}
	}
	return f.refuses
}

func (f *fake) Status() (*kernel.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Interfaces = slices.Clone(s.Interfaces)
	return &s, f.refuses
}

func (f *fake) Rules() (rules []kernel.Rule, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.nothing(); err != nil {
		return nil, err
	}
	for i, r := range f.policy.Rules {
		rule := kernel.Rule{Name: r.Name, Line: r.Line, Verdict: r.Does(), Log: r.Log, Audit: r.Audit, Frames: uint64(i + 1), Bytes: uint64(42 * (i + 1))}
		if r.Match != nil {
			rule.Match = r.Match.String()
		}
		if r.Limit != nil {
			rule.Limit = r.Limit.String()
		}
		rules = append(rules, rule)
	}
	return append(rules, kernel.Rule{Name: "default", Verdict: f.policy.Default.String()}, kernel.Rule{Name: "malformed", Verdict: "drop", Frames: 7, Bytes: 420}), nil
}

func (f *fake) Sets() (sets []kernel.SetInfo, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.nothing(); err != nil {
		return nil, err
	}
	for _, d := range f.policy.Sets {
		s := kernel.SetInfo{Name: d.Name, Elements: len(f.sets[d.Name])}
		for _, typ := range d.Types {
			s.Types = append(s.Types, typ.String())
		}
		sets = append(sets, s)
	}
	return sets, nil
}

// set finds the declaration of a set.
func (f *fake) set(name string) (*firewall.SetDecl, error) {
	if err := f.nothing(); err != nil {
		return nil, err
	}
	for _, d := range f.policy.Sets {
		if d.Name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("policy %s: %w: %q", f.policy.Name, kernel.ErrNoSet, name)
}

func (f *fake) AddToSet(set string, deadline int64, elements ...[]string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.set(set)
	for _, e := range elements {
		if err != nil {
			return err
		}
		if _, err = d.Element(e...); err != nil {
			return fmt.Errorf("set %q: %w", set, err)
		}
		left := time.Duration(0)
		if deadline != 0 {
			left = time.Duration(deadline - fakeBegan)
		}
		f.sets[set] = append(f.sets[set], kernel.Element{Text: e, Remaining: left})
		f.ends[strings.Join(e, ",")] = deadline
	}
	return err
}

func (f *fake) DeleteFromSet(set string, elements ...[]string) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.set(set); err != nil {
		return 0, err
	}
	for _, gone := range elements {
		before := len(f.sets[set])
		f.sets[set] = slices.DeleteFunc(f.sets[set], func(e kernel.Element) bool { return slices.Equal(e.Text, gone) })
		n += before - len(f.sets[set])
	}
	return n, nil
}

func (f *fake) ListSet(set string) ([]kernel.Element, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.set(set)
	return slices.Clone(f.sets[set]), err
}

func (f *fake) Monitor(ctx context.Context, fn func(*kernel.Event) error) error {
	if f.refuses != nil {
		return f.refuses
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-f.events:
			if err := fn(e); err != nil {
				return err
			}
		}
	}
}

func (f *fake) Follow(ctx context.Context, _ *slog.Logger) error {
	f.following <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

func (f *fake) Doctor() *kernel.Diagnosis {
	d := f.diagnosis
	d.Interfaces = f.status.Interfaces
	return &d
}

// TestMachineSessions runs the sessions of the commands that enforce, with a fake.
func TestMachineSessions(t *testing.T) {
	zone := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = zone })
	sessions(t, "testdata/machine/*.session", func(t *testing.T) stage {
		f := newFake()
		return stage{f.around(t.TempDir()), func(name string) {
			given := givens[name]
			if given == nil {
				t.Fatalf("nobody knows %q", name)
			}
			given(f)
		}}
	})
}

func refusing(format string, args ...any) func(*fake) {
	return func(f *fake) { f.refuses = fmt.Errorf(format, args...) }
}

// givens are what the sessions of testdata/machine can be given.
var givens = map[string]func(*fake){
	"a working kernel": func(f *fake) { f.refuses = nil },
	"no bpffs":         refusing("/sys/fs/bpf is %w but on a file system of type 0x62656572: mount one (mount -t bpf bpf /sys/fs/bpf); inside `ip netns exec`, whose own /sys hides it, use `nsenter --net=/run/netns/NAME` instead", bpffs.ErrNone),
	"an old kernel":    refusing("gate: netfilter's egress hook (Linux 5.16, CONFIG_NETFILTER_EGRESS) %w", gate.ErrNotSupported),
	"another owner":    refusing("gate: table netdev postern %w: its comment is not ours", gate.ErrForeign),
	"no cgroup2":       refusing("seal of /sys/fs/cgroup: %w", seal.ErrNoCgroup2),
	"another reader":   refusing("%w", kernel.ErrBusy),
	"a set full":       refusing("set \"vips\", which has room for 65536 look-up keys: %w", unix.E2BIG),
	"a lost interface": func(f *fake) {
		f.status.Interfaces[0].Guarded, f.status.Interfaces[0].Fault = false, "no such interface"
	},
	"a changed chain": func(f *fake) { f.status.Interfaces[0].Fault = "the chain's rules were changed" },
	"another policy":  func(f *fake) { f.status.Interfaces[0].Policy = "before" },
	"a time that is up": func(f *fake) {
		f.status.Pending.Deadline, f.status.Pending.RolledBack = fakeNow.Add(-time.Second), true
	},
	"a sealed cgroup":     func(f *fake) { f.status.Seals = []kernel.Seal{{Cgroup: "/", Sealed: true}} },
	"a cgroup not sealed": func(f *fake) { f.status.Seals = []kernel.Seal{{Cgroup: "/", Fault: "it was made again"}} },
	"warnings": func(f *fake) {
		f.status.Warnings, f.status.LostEvents = []string{"AF_XDP is open on eth0: nothing is sealed"}, 12
	},
	"paths": func(f *fake) {
		f.status.Interfaces[0].Paths = []kernel.Path{{Name: "sendto", Closed: true, Why: "the gate sees it"}, {Name: "AF_XDP", Why: "no egress hook sees it; seal the cgroup"}}
	},
	"closed paths": func(f *fake) {
		f.status.Interfaces[0].Paths = []kernel.Path{{Name: "sendto", Closed: true, Why: "the gate sees it"}}
	},
	"checks": func(f *fake) {
		f.diagnosis.Checks = []kernel.Check{{Name: "eBPF", OK: true, Detail: "a program loads"}, {Name: "tcx", Detail: "not in this kernel"}}
	},
	"a missing bpffs": func(f *fake) {
		f.diagnosis.Checks = append(f.diagnosis.Checks, kernel.Check{Name: "bpffs", Detail: "none at /sys/fs/bpf", Remedy: "mount -t bpf bpf /sys/fs/bpf"})
	},
	"three events": func(f *fake) {
		for _, e := range someEvents() {
			f.events <- e
		}
	},
}

// someEvents are a refusal, one of a frame that has no socket and is longer than what is
// told of it, and what an audited rule would have refused.
func someEvents() []*kernel.Event {
	frame := func(s string) []byte {
		b, _ := hex.DecodeString(s)
		return b
	}
	request := frame(frameRequest)
	refused := &kernel.Event{Time: fakeNow, Rule: "no-foreign-arp", Reason: firewall.ReasonRule, Interface: "eth0", Index: 2, Len: len(request), Frame: request,
		HasSender: true, Sender: filter.Sender{UID: 1000, PID: 4711, Comm: "arping\x1b[2J", Cgroup: "/user.slice"}, Cookie: 99}
	offer := frame(frameOffer)
	forwarded := &kernel.Event{Time: fakeNow, Rule: "default", Reason: firewall.ReasonDefault, Interface: "veth1", Index: 7, Len: len(offer), Frame: offer[:128]}
	bad := frame(frameBadARP)
	audited := &kernel.Event{Time: fakeNow, Verdict: firewall.Accept, Rule: "malformed", Reason: firewall.MalformedReason(filter.ARPCause(3)), Audited: true,
		Interface: "eth0", Index: 2, Len: len(bad), Frame: bad, HasSender: true, Sender: filter.Sender{PID: 1, Comm: "init"}}
	return []*kernel.Event{refused, forwarded, audited}
}
