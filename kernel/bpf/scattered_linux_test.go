package bpf

import "testing"

// TestScatteredParse: frames are read alike whether they are in one piece, as all are that
// BPF_PROG_TEST_RUN makes, or in pieces. The lengths around those that are copied at once are all there.
func TestScatteredParse(t *testing.T) {
	pin(t)
	frames := corpus(t)
	for _, scattered := range []bool{false, true} {
		p := both(t, plain, Options{scattered: scattered})
		m := newMaker(2, 0, samples(frames), 0)
		for range fromEnv("POSTERN_FRAMES", 20_000) {
			f := m.mutate(frames[m.IntN(len(frames))])
			if len(f) > 70 && m.IntN(2) == 0 {
				f = f[:minRun+m.IntN(56)]
			}
			if !p.agree("mutated", f, 0) {
				t.Fatalf("scattered: %v", scattered)
			}
		}
	}
}
