package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// pair is one policy in both engines.
type pair struct {
	t      testing.TB
	fw     *firewall.Firewall
	engine *Engine
	pkt    filter.Packet
	iface  filter.Meta
	kernel kernelRun
	// single is true where no frame is a super-frame.
	single bool
	// ask has the kernel judge a frame, and is run unless told otherwise; it reports false
	// for a frame that the kernel does not take.
	ask func(frame []byte, gso uint32) (outcome, bool)
	// ifindex is of the device by which frames leave.
	ifindex int
	// last and lastWant are Classify's last decision.
	last     firewall.Decision
	lastWant outcome
	// indexes are the places of the rules, there are the interfaces to forward to.
	indexes   map[*firewall.Rule]uint32
	there     map[string]bool
	rewritten []byte
	// compared frames, and those that BPF_PROG_TEST_RUN does not take.
	compared, refused int
}

// testIface is the device that test frames leave by, unless told otherwise: the
// loopback device, for BPF_PROG_TEST_RUN takes that of the network namespace.
const testIface = 1

func parse(t testing.TB, src string) *firewall.Policy {
	t.Helper()
	p, _, err := firewall.Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatalf("%v\n%.4000s", err, src)
	}
	return p
}

// both judges the frames of BPF_PROG_TEST_RUN, which no packet socket sent.
func both(t testing.TB, src string, o Options) *pair {
	t.Helper()
	o.AllSenders = true
	return load(t, src, o)
}

func load(t testing.TB, src string, o Options) *pair {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root to load eBPF programs")
	}
	p := &pair{t: t, ifindex: testIface, iface: filter.Meta{Iface: "lo", Sender: self(t)}, indexes: map[*firewall.Rule]uint32{}, there: map[string]bool{}}
	policy := parse(t, src)
	var err error
	if p.fw, err = firewall.New(policy); err != nil {
		t.Fatal(err)
	}
	spec, err := Compile(firewall.Compile(policy), o)
	if err != nil {
		t.Fatalf("%v\n%.4000s", err, src)
	}
	e, err := spec.Load()
	if err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			n := len(ve.Log)
			for _, l := range ve.Log[max(0, n-60):] {
				t.Log(l)
			}
		}
		t.Fatalf("%v\n%.4000s", err, src)
	}
	p.use(e)
	p.ask = p.run
	for i, r := range policy.Rules {
		p.indexes[r] = uint32(i)
	}
	t.Cleanup(func() { e.Close() })
	if m := p.engine.maps[mapIfaces]; m != nil {
		if err := p.engine.SetInterface(testIface, "lo", nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// self is the sender of this thread's frames, those of BPF_PROG_TEST_RUN as well, as the
// kernel knows it.
func self(t testing.TB) *filter.Sender {
	t.Helper()
	comm, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		t.Fatal(err)
	}
	return &filter.Sender{UID: uint32(os.Getuid()), PID: uint32(os.Getpid()), Comm: string(bytes.TrimSuffix(comm, []byte("\n")))}
}

// outcome is what an engine decided.
type outcome struct {
	verdict, reason, rule, mark, effects uint32
	marked, audited                      bool
}

// run has the kernel judge a frame.
func (p *pair) run(frame []byte, gso uint32) (outcome, bool) {
	p.t.Helper()
	ok, err := p.kernel.judge(frame, gso, p.iface.Mark)
	if err != nil {
		p.t.Fatalf("running on %d bytes: %v", len(frame), err)
	}
	if !ok {
		p.refused++
		return outcome{}, false
	}
	p.compared++
	return p.decision(), true
}

// pin keeps the test on one CPU, whose scratch area is the one to read.
func pin(t testing.TB) {
	runtime.LockOSThread()
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		t.Fatal(err)
	}
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &was)
		runtime.UnlockOSThread()
	})
}

// decision is what was decided on CPU 0 last.
func (p *pair) decision() outcome {
	p.t.Helper()
	o, err := p.kernel.decision()
	if err != nil {
		p.t.Fatal(err)
	}
	return o
}

// use makes the engine the one that run asks.
func (p *pair) use(e *Engine) {
	p.engine = e
	p.kernel = kernelRun{prog: uint32(e.prog.FD()), scratch: uint32(e.maps[mapScratch].FD()),
		area: make([]byte, ebpf.MustPossibleCPU()*int(e.maps[mapScratch].ValueSize()+7)&^7)}
}

// want is what Classify decides, and what becomes of it if it cannot be carried out.
func (p *pair) want(frame []byte, gso int) (o outcome) {
	m := p.iface
	m.GSOSize = gso
	p.pkt.Decode(frame, &m)
	d := p.fw.Classify(&p.pkt)
	p.last = d
	defer func() { p.lastWant = o }()
	o = outcome{verdict: uint32(d.Verdict), reason: uint32(d.Reason), rule: p.index(d.Rule), mark: d.Mark, marked: d.Marked, audited: d.Audited}
	if d.Reason.Malformed() {
		o.rule++
	}
	unsendable := d.Verdict == firewall.Forward && !p.there[d.Rule.Iface]
	for i := range d.Effects() {
		r := d.Effect(i)
		o.effects = o.effects*10007 + p.index(r) + 1
		if r.Action == firewall.ActionSet && d.Verdict != firewall.Drop {
			p.rewritten = append(p.rewritten[:0], frame...)
			// Rewrite knows no super-frames; an ARP packet in one is malformed.
			arp := slices.ContainsFunc(r.Set, func(a firewall.Assignment) bool { return strings.HasPrefix(a.Field.Name, "arp.") })
			unsendable = unsendable || gso > 0 && arp || !firewall.Rewrite(p.rewritten, r.Set)
		}
	}
	if unsendable {
		o.verdict, o.reason = uint32(firewall.Drop), uint32(firewall.ReasonUnsendable)
	}
	return o
}

// index is a rule's place in the policy; that of the default is behind all rules.
func (p *pair) index(r *firewall.Rule) uint32 {
	if r == nil {
		return uint32(len(p.indexes))
	}
	return p.indexes[r]
}

// agree reports whether both engines say the same, and fails the test if not.
func (p *pair) agree(name string, frame []byte, gso int) bool {
	p.t.Helper()
	if len(frame) < minRun || len(frame) > maxRun {
		return true
	}
	got, ran := p.ask(frame, uint32(gso))
	if !ran {
		return true
	}
	want := p.want(frame, gso)
	if got == want {
		return true
	}
	p.t.Errorf("%s: kernel %+v, Classify %+v (%v)\n%x", name, got, want, firewall.Reason(want.reason), frame)
	return false
}

// What BPF_PROG_TEST_RUN takes: more than an Ethernet header, and what fits into a
// page with an skb's own data behind it.
const (
	minRun = 15
	maxRun = 3400
)

func (o outcome) String() string {
	return fmt.Sprintf("{verdict %v, reason %q, rule %d, mark %v %#x, effects %d, audited %v}",
		firewall.Verdict(o.verdict), firewall.Reason(o.reason), o.rule, o.marked, o.mark, o.effects, o.audited)
}
