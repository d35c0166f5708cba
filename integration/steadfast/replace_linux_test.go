package steadfast

import (
	"testing"

	"github.com/postern-fw/postern/kernel"
)

// TestReplace: 1,000 policies, one after the other, under full-rate sending from two sockets.
func TestReplace(t *testing.T) {
	for _, c := range []struct {
		name   string
		bypass []bool
		hooks  []string
		times  int
	}{
		{"gate, a socket with bypass and one without", []bool{false, true}, []string{"gate"}, 600},
		{"tc", []bool{false, false}, []string{"tc"}, 200},
		{"from one hook to the other", []bool{false, false}, []string{"gate", "tc"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			if raceEnabled {
				c.times /= 20
			}
			w := newWorld(t)
			open := w.flood(c.bypass...)
			for open.sent[forged].Load() < 1000 {
			}
			open.stop()
			if n := w.out(); n < 500 {
				t.Fatalf("without a guard %d of %d forged frames got out", n, open.sent[forged].Load())
			}
			apply := func(i int) {
				_, err := w.Apply(kernel.Source{Name: "test.yaml", Text: []byte(policy(c.hooks[i%len(c.hooks)], i))}, kernel.ApplyOptions{})
				must(t, err)
			}
			apply(0)
			letGo, out := w.letGoNow(), w.out()
			f := w.flood(c.bypass...)
			for i := range c.times {
				apply(i + 1)
			}
			f.stop()
			if got := w.out() - out; got != 0 {
				t.Errorf("%d of %d forged frames got out", got, f.sent[forged].Load())
			}
			sent := f.sent[honest].Load() + f.sent[honestBypass].Load()
			if got := w.letGoNow() - letGo; got != sent {
				t.Errorf("%d of %d honest frames were let go", got, sent)
			}
			t.Logf("%d replacements; %d of %d forged frames got out; %d of %d honest frames did", c.times, w.out()-out, f.sent[forged].Load(), w.letGoNow()-letGo, sent)
		})
	}
}
