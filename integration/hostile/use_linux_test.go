package hostile

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// use is a program and what it is used for.
type use struct {
	name   string
	policy string // what is in force at the near end, where the program runs
	run    func(t testing.TB, p *lab.Pair) *labtest.Program
	// forged frames must not get out: each by a display filter, with the rule that
	// refuses it. honest ones must.
	forged []forgery
	honest []string
	// endless programs are killed when they have shown what they do. The others end by
	// themselves, and what they sent is counted: honest frames get out as often as
	// without a guard.
	endless bool
	// flood says that it sends at full rate, of which much is to be refused.
	flood bool
	// nonlocal lets it bind sockets to addresses that the near end does not have, for
	// which its kernel does not answer either.
	nonlocal bool
	// victim is an address that the far end's kernel is looking for; who claims it gets it.
	victim string
}

type forgery struct{ match, rule string }

// try runs the program unguarded, where all that it sends gets out, and guarded.
func (u use) try(t *testing.T) {
	t.Parallel()
	p, r := u.world(t)
	open := u.watch(t, p, r, nil)
	if u.victim != "" && !u.believed(t, p) {
		t.Errorf("unguarded, the far end's kernel does not believe who claims %s", u.victim)
	}

	p, r = u.world(t)
	g := guard(t, p, labtest.Near, u.policy)
	shut := u.watch(t, p, r, g)
	for _, f := range u.forged {
		t.Logf("%s: %d frames get out unguarded, %d guarded", f.match, open.count[f.match], shut.count[f.match])
		if n := shut.count[f.match]; n != 0 {
			t.Errorf("%d frames got out that are %s", n, f.match)
		}
	}
	for _, match := range u.honest {
		t.Logf("%s: %d frames get out unguarded, %d guarded", match, open.count[match], shut.count[match])
		if !u.endless && open.count[match] != shut.count[match] {
			t.Errorf("%d frames got out, and %d without a guard, that are %s", shut.count[match], open.count[match], match)
		}
	}
	if u.victim != "" && u.believed(t, p) {
		t.Errorf("the far end's kernel believes who claims %s", u.victim)
	}
}

// world is two ends and what counts the frames that get out.
func (u use) world(t *testing.T) (*lab.Pair, *lab.Receiver) {
	t.Helper()
	p := labtest.NewPair(t, "192.0.2.5/24", "192.0.2.1/24")
	labtest.Address(t, p, labtest.Far, "192.0.2.254/24")
	if u.nonlocal {
		labtest.In(t, p, labtest.Near, func() error {
			return os.WriteFile("/proc/sys/net/ipv4/ip_nonlocal_bind", []byte("1"), 0)
		})
	}
	r, err := p.Receive(labtest.Far)
	must(t, err)
	t.Cleanup(func() { r.Close() })
	return p, r
}

// watch runs the program and counts what gets out: until it has shown everything, and,
// if it ends by itself, has ended.
func (u use) watch(t *testing.T, p *lab.Pair, r *lab.Receiver, g *guarded) *tally {
	t.Helper()
	if u.victim != "" {
		labtest.AskFor(t, p, netip.MustParseAddr(u.victim))
	}
	seen := u.tally(t)
	running := u.run(t, p)
	for deadline := time.Now().Add(labtest.Patience); ; {
		ended := running.Ended()
		seen.read(t, r)
		missing := u.missing(t, seen, g)
		if len(missing) == 0 && (ended || u.endless) {
			break
		}
		if ended || time.Now().After(deadline) {
			t.Fatalf("guarded: %t, ended: %t, but not seen: %s", g != nil, ended, strings.Join(missing, "; "))
		}
	}
	running.Kill()
	seen.read(t, r)
	return seen
}

// missing is what has not been seen yet of what the program does.
func (u use) missing(t *testing.T, seen *tally, g *guarded) (list []string) {
	t.Helper()
	refused, many := map[string]uint64{}, uint64(1)
	if u.flood {
		many = 1000
	}
	for _, f := range u.forged {
		refused[f.rule] += many
		if g == nil && seen.count[f.match] == 0 {
			list = append(list, f.match)
		}
		if g != nil && g.decided(t, f.rule) < refused[f.rule] {
			list = append(list, "refusal by "+f.rule)
		}
	}
	for _, match := range u.honest {
		if seen.count[match] == 0 {
			list = append(list, match)
		}
	}
	return list
}

// believed tells whether the far end's kernel takes the near end's for the victim's
// hardware address. It learns of a frame when it has arrived, if not at once.
func (u use) believed(t *testing.T, p *lab.Pair) bool {
	t.Helper()
	for range 10 {
		if labtest.Cached(t, p, labtest.Far, netip.MustParseAddr(u.victim)) != nil {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// tally counts frames by the display filter that they match.
type tally struct {
	count  map[string]int
	exprs  map[string]filter.Expr
	packet filter.Packet
}

func (u use) tally(t testing.TB) *tally {
	t.Helper()
	var matches []string
	for _, f := range u.forged {
		matches = append(matches, f.match)
	}
	return newTally(t, append(matches, u.honest...)...)
}

func newTally(t testing.TB, matches ...string) *tally {
	t.Helper()
	s := &tally{count: map[string]int{}, exprs: map[string]filter.Expr{}}
	for _, match := range matches {
		expr, err := filter.Parse(match, nil)
		if err != nil {
			t.Fatalf("%s: %v", match, err)
		}
		s.exprs[match] = expr
	}
	return s
}

// read counts what has arrived, until it is quiet, or, in a flood, for a while.
func (s *tally) read(t testing.TB, r *lab.Receiver) {
	t.Helper()
	for range 10_000 {
		frame, err := r.Next(20 * time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		must(t, err)
		s.packet.Decode(frame, nil)
		for match, expr := range s.exprs {
			if filter.Eval(expr, &s.packet, nil) {
				s.count[match]++
			}
		}
	}
}

// command is a program at the near end.
func command(name, debian string, args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		return labtest.Start(t, p, labtest.Near, nil, labtest.Tool(t, name, debian), args...)
	}
}

// example is one of the project's policies, for this interface, and all senders if wanted.
func example(t testing.TB, name, interfaces, senders string) string {
	t.Helper()
	text := labtest.Example(t, name)
	guard := "- interfaces: " + interfaces + "\n"
	if !strings.Contains(text, guard) {
		t.Fatalf("%s does not guard %s", name, interfaces)
	}
	return strings.Replace(text, guard, "- interfaces: [near]\n    senders: "+senders+"\n", 1)
}

// testdata is one of this package's policies.
func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	must(t, err)
	return string(b)
}
