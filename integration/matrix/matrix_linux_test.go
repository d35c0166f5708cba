package matrix

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/evasions"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// role is the frames that one policy judges.
type role struct {
	policy         *evasions.Policy
	forged, honest []evasions.Frame
}

// rolesOf collects the cases by policy, each frame once. GSO super-frames need another
// kind of socket.
func rolesOf(h evasions.Host) (list []*role, superFrames []*evasions.Case) {
	byPolicy, seen := map[*evasions.Policy]*role{}, map[string]bool{}
	for _, c := range evasions.Cases(h) {
		r := byPolicy[c.Policy]
		if r == nil {
			r = &role{policy: c.Policy}
			byPolicy[c.Policy] = r
			list = append(list, r)
		}
		add := func(to *[]evasions.Frame, f evasions.Frame) {
			key := fmt.Sprintf("%s %x", c.Policy.Name, f.Bytes)
			if f.GSOSize == 0 && !seen[key] {
				seen[key] = true
				*to = append(*to, f)
			}
		}
		if c.Forged.GSOSize > 0 {
			superFrames = append(superFrames, &c)
		}
		add(&r.forged, c.Forged)
		add(&r.honest, c.Honest)
	}
	return list, superFrames
}

// TestGate: no forged frame gets out by any path, each honest one arrives once. Without
// the gate, all of them do.
func TestGate(t *testing.T) {
	p, g := world(t)
	h := evasions.NewHost()
	copy(h.MAC[:], p.Ifi[0].HardwareAddr)
	roles, superFrames := rolesOf(h)
	r := receive(t, p)

	open := tally{}
	for _, role := range roles {
		open.add(run(t, p, r, role, false))
	}
	t.Logf("no guard:    %v", open)
	if open.forgedOut < open.forged*9/10 || open.honestOnce < open.honest*9/10 {
		t.Errorf("without a guard most frames should arrive")
	}

	guarded := tally{}
	for _, role := range roles {
		guard(t, p, g, role.policy)
		guarded.add(run(t, p, r, role, true))
	}
	t.Logf("gate, eBPF:  %v", guarded)
	if guarded.forgedOut != 0 || guarded.honestOnce != guarded.honest-guarded.unsendableHonest {
		t.Errorf("%v", guarded)
	}
	t.Run("super-frames", func(t *testing.T) { testSuperFrames(t, p, g, r, superFrames) })
}

// testSuperFrames: one UDP header, many datagrams. What arrives without a guard are the
// datagrams.
func testSuperFrames(t *testing.T, p *lab.Pair, g gate.Gate, r *receiver, cases []*evasions.Case) {
	if len(cases) == 0 {
		t.Fatal("no super-frames to send")
	}
	out := func(c *evasions.Case) (n int) {
		for _, bypass := range []bool{false, true} {
			must(t, p.Do(0, func() error {
				s, err := openVNET(p.Ifi[0].Index, bypass, c.Forged.GSOSize)
				if err == nil {
					defer s.close()
					err = s.send(c.Forged.Bytes)
				}
				return err
			}))
		}
		counts := map[string]int{}
		r.drain(counts)
		for b, times := range counts {
			if len(b) > 23 && b[12:14] == "\x08\x00" && b[23] == unix.IPPROTO_UDP {
				n += times
			}
		}
		return n
	}
	must(t, g.Remove())
	for _, c := range cases {
		if out(c) < 2 {
			t.Errorf("%s: does not get out without a guard", c)
		}
	}
	for _, c := range cases {
		guard(t, p, g, c.Policy)
		if n := out(c); n != 0 {
			t.Errorf("%s: %d frames got out", c, n)
		}
	}
	t.Logf("%d super-frames, with and without bypass: all get out without a guard, none with it", len(cases))
}

// guard puts a policy in force in the near namespace.
func guard(t *testing.T, p *lab.Pair, g gate.Gate, policy *evasions.Policy) {
	t.Helper()
	must(t, g.Remove())
	judge(t, p, g, policy)
	must(t, g.Install(gate.Config{Devices: []gate.Device{{Name: "near"}}}))
}

// world is two namespaces, and a gate for the near one.
func world(t *testing.T) (*lab.Pair, gate.Gate) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces and eBPF")
	}
	p, err := lab.New()
	must(t, err)
	t.Cleanup(p.Close)
	if err := gate.Probe(int(p.NS[0])); err != nil {
		cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	return p, gate.Gate{Name: "postern", Owner: "postern, by its test", NetNS: int(p.NS[0])}
}

// judge attaches the policy to the gate's inspection device.
func judge(t *testing.T, p *lab.Pair, g gate.Gate, policy *evasions.Policy) {
	t.Helper()
	pol, _, err := firewall.Parse(policy.Name, policy.YAML)
	must(t, err)
	spec, err := bpf.Compile(firewall.Compile(pol), bpf.Options{Gate: true})
	must(t, err)
	e, err := spec.Load()
	must(t, err)
	t.Cleanup(func() { e.Close() })
	must(t, e.SetInterface(p.Ifi[0].Index, "near", p.Ifi[0].HardwareAddr, 0))
	for _, live := range policy.Live {
		for _, decl := range pol.Sets {
			if decl.Name == live.Set {
				el, err := decl.Element(live.Parts...)
				must(t, err)
				must(t, e.UpdateSet(live.Set, func(u *bpf.SetUpdate) error { return u.Add(el) }))
			}
		}
	}
	index, err := g.Inspection()
	must(t, err)
	must(t, p.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: e.Program(), Attach: ebpf.AttachTCXEgress})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
}

// tally is what became of the frames.
type tally struct {
	paths                                 int
	forged, forgedOut, honest, honestOnce int
	unsendable, unsendableHonest          int
}

func (t *tally) add(o tally) {
	t.paths = max(t.paths, o.paths)
	t.forged, t.forgedOut = t.forged+o.forged, t.forgedOut+o.forgedOut
	t.honest, t.honestOnce = t.honest+o.honest, t.honestOnce+o.honestOnce
	t.unsendable, t.unsendableHonest = t.unsendable+o.unsendable, t.unsendableHonest+o.unsendableHonest
}

func (t tally) String() string {
	return fmt.Sprintf("%d paths: %d of %d forged frames got out, %d of %d honest ones arrived, each once (%d and %d that no socket of their path takes)",
		t.paths, t.forgedOut, t.forged, t.honestOnce, t.honest, t.unsendable, t.unsendableHonest)
}

// run sends all frames of a role by every path.
func run(t *testing.T, p *lab.Pair, r *receiver, role *role, guarded bool) (sum tally) {
	t.Helper()
	for _, path := range paths() {
		sum.paths++
		var s sender
		must(t, p.Do(0, func() (err error) {
			s, err = path.open(p.Ifi[0].Index)
			return err
		}))
		counts := map[string]int{}
		send := func(f evasions.Frame) bool {
			err := s.send(f.Bytes)
			if err != nil && !errors.Is(err, errUnsendable) {
				t.Fatalf("%s: %v", path.name, err)
			}
			return err == nil
		}
		for _, f := range role.forged {
			sum.forged++
			if !send(f) {
				sum.unsendable++
			}
		}
		for _, f := range role.honest {
			sum.honest++
			if !send(f) {
				sum.unsendableHonest++
			}
		}
		r.drain(counts)
		s.close()
		for _, f := range role.forged {
			n := counts[string(f.Bytes)]
			sum.forgedOut += min(1, n)
			if n > 0 && guarded {
				t.Errorf("%s, %s: a forged frame got out: %x", role.policy.Name, path.name, f.Bytes)
			}
		}
		for _, f := range role.honest {
			if n := counts[string(f.Bytes)]; n == 1 {
				sum.honestOnce++
			} else if guarded {
				t.Errorf("%s, %s: an honest frame arrived %d times: %x", role.policy.Name, path.name, n, f.Bytes)
			}
		}
	}
	return sum
}
