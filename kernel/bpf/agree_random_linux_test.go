package bpf

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
)

// number reads an environment variable, so that the tests can be run longer.
func fromEnv(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestMutatedParse holds the parsers against each other on frames that are damaged.
func TestMutatedParse(t *testing.T) {
	pin(t)
	p := both(t, plain, Options{})
	m := newMaker(1, corpus(t))
	bad := 0
	for range fromEnv("POSTERN_FRAMES", 100_000) {
		gso := 0
		if m.IntN(8) == 0 {
			gso = 500
		}
		if !p.agree("mutated", m.mutate(m.frames[m.IntN(len(m.frames))]), gso) {
			if bad++; bad > 5 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d frames compared, %d that BPF_PROG_TEST_RUN refuses", p.compared, p.refused)
}

// TestRandomPolicies holds the engines against each other on policies and frames
// drawn at random. POSTERN_POLICIES and POSTERN_SEED run it longer.
func TestRandomPolicies(t *testing.T) {
	pin(t)
	m := newMaker(uint64(fromEnv("POSTERN_SEED", 1)), corpus(t))
	policies, pairs, refused, decided := 0, 0, 0, 0
	for policies < fromEnv("POSTERN_POLICIES", 150) {
		src := m.policy(12)
		linear := 12 * (1 - policies%2*2) // or by index
		_, err := Compile(firewall.Compile(parse(t, src)), Options{AllSenders: true, linear: linear})
		if errors.Is(err, ErrNotSupported) || errors.Is(err, ErrTooLarge) {
			refused++
			continue
		}
		p := both(t, src, Options{linear: linear})
		policies++
		for range 300 {
			f := m.frames[m.IntN(len(m.frames))]
			if m.IntN(2) == 0 {
				f = m.mutate(f)
			}
			if len(f) >= minRun && len(f) <= maxRun && p.want(f, 0).reason == uint32(firewall.ReasonRule) {
				decided++
			}
			if !p.agree("random", f, 0) {
				t.Fatal(src)
			}
		}
		pairs += p.compared
		p.engine.Close()
	}
	t.Logf("%d policies, %d more refused, %d (policy, frame) pairs compared, %d decided by a rule", policies, refused, pairs, decided)
	if decided < pairs/20 {
		t.Errorf("only %d of %d frames were decided by a rule", decided, pairs)
	}
}

// policy draws a policy of n rules.
func (m *maker) policy(n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy: p\nmalformed: %s\ndefault: %s\nrules:\n", []string{"match", "match", "match", "drop"}[m.IntN(4)], []string{"accept", "drop"}[m.IntN(2)])
	verdicts := []string{"accept", "drop", "{mark: 7}", "{mark: 4294967295}", "{duplicate: lo}", "{duplicate: lo}", "{duplicate: lo}"}
	for i := range n {
		fmt.Fprintf(&b, "  - {name: r%d, match: '%s', verdict: %s}\n", i, m.expr(2, nil), verdicts[m.IntN(len(verdicts))])
	}
	return b.String()
}
