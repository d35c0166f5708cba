package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
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
	p := &pair{t: t, iface: filter.Meta{Iface: "lo", Sender: self(t)}}
	policy := parse(t, src)
	var err error
	if p.fw, err = firewall.New(policy); err != nil {
		t.Fatal(err)
	}
	spec, err := Compile(firewall.Compile(policy), o)
	if err != nil {
		t.Fatalf("%v\n%.4000s", err, src)
	}
	if p.engine, err = spec.Load(); err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			n := len(ve.Log)
			for _, l := range ve.Log[max(0, n-60):] {
				t.Log(l)
			}
		}
		t.Fatalf("%v\n%.4000s", err, src)
	}
	t.Cleanup(func() { p.engine.Close() })
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
	ctx := make([]byte, 192)
	binary.NativeEndian.PutUint32(ctx[skbGSOSize:], gso)
	_, err := p.engine.prog.Run(&ebpf.RunOptions{Data: frame, Context: ctx})
	if errors.Is(err, unix.EINVAL) {
		p.refused++
		return outcome{}, false
	}
	if err != nil {
		p.t.Fatalf("running on %d bytes: %v", len(frame), err)
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

// decision reads the scratch area of CPU 0.
func (p *pair) decision() (o outcome) {
	var all [][]byte
	if err := p.engine.maps[mapScratch].Lookup(uint32(0), &all); err != nil {
		p.t.Fatal(err)
	}
	b := all[0]
	u := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	o = outcome{verdict: u(sVerdict), reason: u(sReason), rule: u(sRule), marked: u(sFlags)&flagMarked != 0, audited: u(sFlags)&flagAudited != 0}
	if o.marked {
		o.mark = u(sMark)
	}
	for i := range u(sNEffects) {
		o.effects = o.effects*10007 + u(sEffects+4*int(i)) + 1
	}
	return o
}

// want is what Classify decides.
func (p *pair) want(frame []byte, gso int) (o outcome) {
	m := p.iface
	m.GSOSize = gso
	p.pkt.Decode(frame, m)
	d := p.fw.Classify(&p.pkt)
	rules := p.fw.Policy().Rules
	index := func(r *firewall.Rule) uint32 {
		for i := range rules {
			if rules[i] == r {
				return uint32(i)
			}
		}
		return uint32(len(rules))
	}
	o = outcome{verdict: uint32(d.Verdict), reason: uint32(d.Reason), rule: index(d.Rule), mark: d.Mark, marked: d.Marked, audited: d.Audited}
	if d.Reason.Malformed() {
		o.rule = uint32(len(rules) + 1)
	}
	for _, r := range d.Effects() {
		o.effects = o.effects*10007 + index(r) + 1
	}
	return o
}

// agree reports whether both engines say the same, and fails the test if not.
func (p *pair) agree(name string, frame []byte, gso int) bool {
	p.t.Helper()
	if len(frame) < minRun || len(frame) > maxRun {
		return true
	}
	want := p.want(frame, gso)
	got, ran := p.run(frame, uint32(gso))
	if got == want || !ran {
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
