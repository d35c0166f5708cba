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
			for open.forged.Load() < 1000 {
			}
			open.stop()
			if n := w.out(); n < 500 {
				t.Fatalf("without a guard %d of %d forged frames got out", n, open.forged.Load())
			}
			apply := func(i int) {
				_, err := w.Apply(kernel.Source{Name: "test.yaml", Text: []byte(policy(c.hooks[i%len(c.hooks)], i))}, kernel.ApplyOptions{})
				must(t, err)
			}
			apply(0)
			letGo, out := w.count(w.letGo, honest), w.out()
			f := w.flood(c.bypass...)
			for i := range c.times {
				apply(i + 1)
			}
			f.stop()
			if got := w.out() - out; got != 0 {
				t.Errorf("%d of %d forged frames got out", got, f.forged.Load())
			}
			if got := w.count(w.letGo, honest) - letGo; got != f.honest.Load() {
				t.Errorf("%d of %d honest frames were let go", got, f.honest.Load())
			}
			t.Logf("%d replacements; %d forged frames, none out; %d honest frames, none lost", c.times, f.forged.Load(), f.honest.Load())
		})
	}
}
