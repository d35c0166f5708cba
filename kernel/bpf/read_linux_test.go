package bpf

import "testing"

// TestWaysToRead: frames are read alike whether their head is copied at once or by a helper, and whatever the
// kernel tells of struct sk_buff. The lengths around those that are copied at once are all there.
func TestWaysToRead(t *testing.T) {
	pin(t)
	frames, probed := corpus(t), kernelSKB()
	probed.cast = 0
	for name, o := range map[string]Options{
		"by the kernel's members": {},
		"by bpf_skb_load_bytes":   {scattered: true},
		"by bpf_probe_read":       {skb: probed},
		"without BTF":             {skb: skbLayout{route: -1}},
	} {
		p := both(t, plain, o)
		m := newMaker(2, 0, samples(frames), 0)
		for range fromEnv("POSTERN_FRAMES", 20_000) {
			f := m.mutate(frames[m.IntN(len(frames))])
			if len(f) > 70 && m.IntN(2) == 0 {
				f = f[:minRun+m.IntN(56)]
			}
			if !p.agree("mutated", f, 0) {
				t.Fatal(name)
			}
		}
	}
}
