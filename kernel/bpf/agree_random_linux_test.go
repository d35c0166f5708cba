package bpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// fromEnv reads an environment variable, so that the tests can be run longer.
func fromEnv(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestMutatedParse holds the parsers against each other on frames that are damaged.
func TestMutatedParse(t *testing.T) {
	pin(t)
	p, frames := both(t, plain, Options{}), corpus(t)
	m := newMaker(1, 0, samples(frames), 0)
	bad := 0
	for range fromEnv("POSTERN_FRAMES", 100_000) {
		gso := 0
		if m.IntN(8) == 0 {
			gso = 500
		}
		if !p.agree("mutated", m.mutate(frames[m.IntN(len(frames))]), gso) {
			if bad++; bad > 5 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d frames compared, %d that BPF_PROG_TEST_RUN refuses", p.compared, p.refused)
}

// TestAgreement holds Classify, the reference evaluator and the program in the kernel against
// each other on policies and frames drawn at random. What it draws follows from POSTERN_SEED;
// POSTERN_PAIRS says for how many pairs of policy and frame, and POSTERN_POLICY runs one
// policy alone, by the number that a failure names.
func TestAgreement(t *testing.T) {
	seed, pairs, alone := uint64(fromEnv("POSTERN_SEED", 1)), fromEnv("POSTERN_PAIRS", defaultPairs), fromEnv("POSTERN_POLICY", -1)
	kinds := samples(ownCorpus(t))
	var s tally
	for n := max(alone, 0); s.pairs < pairs; n++ {
		m := newMaker(seed, uint64(n), kinds, uint32(os.Getpid()))
		t.Run(fmt.Sprint("policy ", n), func(t *testing.T) { s.policy(t, m) })
		if t.Failed() {
			t.Fatalf("POSTERN_SEED=%d POSTERN_POLICY=%d runs this policy alone", seed, n)
		}
		if alone >= 0 {
			return
		}
	}
	t.Logf("seed %d: %s", seed, &s)
	s.enough(t)
}

// framesEach is how many frames each policy judges.
const framesEach = 2000

// tally counts what was compared, so that a generator that has become too tame is noticed.
type tally struct {
	policies, refused, linear, mapped, sets, limits int
	pairs, rules, explained                         int
	verdicts                                        [3]int
	reasons                                         map[firewall.Reason]int
	marked, effects, audited, malformed             int
}

func (s *tally) String() string {
	return fmt.Sprintf("%d pairs of %d policies, %d more refused; %d policies rule by rule, %d with sets, %d with limits, %d shapes in maps; %d decided by a rule, "+
		"%d explained, verdicts %v, marked %d, with effects %d, audited %d, malformed %d, %v", s.pairs, s.policies, s.refused, s.linear, s.sets, s.limits, s.mapped,
		s.rules, s.explained, s.verdicts, s.marked, s.effects, s.audited, s.malformed, s.reasons)
}

func (s *tally) enough(t *testing.T) {
	few := s.pairs / 1000
	for what, n := range map[string]int{"decided by a rule": s.rules / 100, "dropped": s.verdicts[firewall.Drop], "accepted": s.verdicts[firewall.Accept],
		"forwarded": s.verdicts[firewall.Forward], "marked": s.marked, "with effects": s.effects, "audited": s.audited, "malformed": s.malformed,
		"not sendable": s.reasons[firewall.ReasonUnsendable], "with too many effects": 10 * s.reasons[firewall.ReasonTooManyEffects],
		"by default": s.reasons[firewall.ReasonDefault], "explained": s.explained} {
		if n < few {
			t.Errorf("only %d frames %s", n, what)
		}
	}
	for what, n := range map[string]int{"refused": s.policies/3 - s.refused, "with sets": s.sets - s.policies/8, "with limits": s.limits - s.policies/8,
		"rule by rule": s.linear - s.policies/8, "by look-ups": s.policies - s.linear - s.policies/8} {
		if n < 0 && s.policies > 20 {
			t.Errorf("too few or too many policies %s: %s", what, s)
		}
	}
}

// policy compares the engines on one policy.
func (s *tally) policy(t *testing.T, m *maker) {
	pin(t)
	m.ingress = m.IntN(8) == 0
	o := Options{AllSenders: true, Ingress: m.ingress, linear: []int{0, -1, 60}[m.IntN(3)]}
	p, src := s.load(t, m, o)
	if p == nil {
		return
	}
	defer p.engine.Close()
	p.there["out"] = true
	if err := p.engine.SetTarget(p.fw.Policy(), "out", testIface, 0); err != nil {
		t.Fatal(err)
	}
	s.compare(p, m, src, framesEach)
}

// compare compares the engines on n frames.
func (s *tally) compare(p *pair, m *maker, src string, n int) {
	t := p.t
	for i := range n {
		if i%300 == 0 {
			p.change(m)
		}
		f, gso := m.frame(), 0
		if !p.single && m.IntN(32) == 0 {
			gso = 500
		}
		compared := p.compared
		if !p.agree("random", f, gso) {
			t.Fatal(src)
		}
		if p.compared == compared {
			continue
		}
		s.count(p)
		if !m.limited && i%16 == 0 {
			s.explained++
			twin := p.pkt // effects are kept in the packet
			if d, _ := p.fw.Explain(&twin); !d.Equal(&p.last) {
				t.Fatalf("Classify %+v, Explain %+v\n%x\n%s", p.last, d, f, src)
			}
		}
	}
	s.pairs += p.compared
	p.sameCounters()
}

// load puts the policy into both engines; nil if the kernel's refuses it.
func (s *tally) load(t *testing.T, m *maker, o Options) (_ *pair, src string) {
	t.Helper()
	src = m.policy()
	prog := firewall.Compile(parse(t, src))
	if _, err := Compile(prog, o); errors.Is(err, ErrNotSupported) || errors.Is(err, ErrTooLarge) {
		s.refused++
		t.Log(err)
		return nil, ""
	}
	p := load(t, src, o)
	s.policies++
	rules := len(prog.Policy.Rules)
	if rules <= o.withDefaults().linear {
		s.linear++
	} else {
		for _, shape := range layoutShapes(prog) {
			if shape.mapped {
				s.mapped++
			}
		}
	}
	if len(m.sets) > 0 {
		s.sets++
	}
	if m.limited {
		s.limits++
	}
	return p, src
}

// count counts the last decision.
func (s *tally) count(p *pair) {
	if s.reasons == nil {
		s.reasons = map[firewall.Reason]int{}
	}
	o := p.lastWant
	s.verdicts[o.verdict]++
	if r := firewall.Reason(o.reason); r.Malformed() {
		s.malformed++
	} else if s.reasons[r]++; r == firewall.ReasonRule {
		s.rules++
	}
	for n, is := range map[*int]bool{&s.marked: o.marked, &s.effects: o.effects != 0, &s.audited: o.audited} {
		if is {
			*n++
		}
	}
}

// change tells both engines of another world beside the frames, and changes a set.
func (p *pair) change(m *maker) {
	p.t.Helper()
	m.change()
	p.iface = m.world
	var mac []byte
	if m.world.HasIfaceMAC {
		mac = m.world.IfaceMAC[:]
	}
	if err := p.engine.SetInterface(p.ifindex, m.world.Iface, mac, 0); err != nil {
		p.t.Fatal(err)
	}
	if m.world.Sender != nil {
		p.changeSender(m.world.Sender)
	}
	if len(m.sets) > 0 {
		p.changeSet(m)
	}
	if p.engine.maps[mapCgroups] != nil && m.world.Sender != nil {
		p.changeCgroup(m.world.Sender.Cgroup)
	}
}

// changeSender gives this thread the sender's name.
func (p *pair) changeSender(s *filter.Sender) {
	p.t.Helper()
	comm := append([]byte(s.Comm), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&comm[0])), 0, 0, 0); err != nil {
		p.t.Fatal(err)
	}
}

// changeCgroup has this process's cgroup be at a path.
func (p *pair) changeCgroup(path string) {
	p.t.Helper()
	asked, err := p.engine.Cgroups(p.fw.Policy())
	if err != nil {
		p.t.Fatal(err)
	}
	there := map[uint64]string{}
	if slices.Contains(asked, path) {
		there[ownCgroup()] = path
	}
	if err := p.engine.setCgroups(there); err != nil {
		p.t.Fatal(err)
	}
}

// ownCgroup is the number of this process's cgroup.
func ownCgroup() uint64 {
	mount, path := cgroupMount(), "/"
	lines, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(lines)) {
		if p, ok := strings.CutPrefix(line, "0::"); ok {
			path = strings.TrimSuffix(p, "\n")
		}
	}
	id, err := cgroupID(filepath.Join(mount, path))
	if err != nil {
		return 1 // the root's
	}
	return id
}

// changeSet adds an element to a set, with a deadline that has passed or is far away, or takes
// one out.
func (p *pair) changeSet(m *maker) {
	p.t.Helper()
	set := m.sets[m.IntN(len(m.sets))]
	var decl *firewall.SetDecl
	for _, d := range p.fw.Policy().Sets {
		if d.Name == set.name {
			decl = d
		}
	}
	for range 3 {
		e, err := decl.Element(m.element(set)...)
		if err != nil {
			continue
		}
		if m.IntN(3) == 0 && len(decl.Elements) > 0 {
			e = decl.Elements[m.IntN(len(decl.Elements))]
		}
		e.Deadline = []int64{0, bootTime() - 1, bootTime() + 1e13}[m.IntN(3)]
		add := m.IntN(3) > 0
		if err := p.engine.UpdateSet(set.name, func(u *SetUpdate) error {
			if add {
				return u.Add(e)
			}
			_, err := u.Delete(e)
			return err
		}); err != nil {
			p.t.Fatal(err)
		}
		p.fw.UpdateSet(set.name, func(s *firewall.Set) {
			if add {
				s.Add(e)
			} else {
				s.Delete(e)
			}
		})
	}
}

// sameCounters: both engines counted the same.
func (p *pair) sameCounters() {
	p.t.Helper()
	counters, err := p.engine.Counters(p.fw.Policy())
	if err != nil {
		p.t.Fatal(err)
	}
	for i, want := range p.fw.Counters() {
		if counters[i] != want {
			p.t.Errorf("counter %d: kernel %+v, Classify %+v", i, counters[i], want)
		}
	}
}

// ownCorpus is the corpus where there is one.
func ownCorpus(t testing.TB) [][]byte {
	if _, err := os.Stat(corpusFile); err != nil {
		t.Log("without the corpus, from the list of attacks alone")
		return nil
	}
	return corpus(t)
}
