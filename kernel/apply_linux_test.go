package kernel

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

const vips = `policy: vips
guard: [{interfaces: [near]}]
hook: HOOK
sets: {vips: {type: ipv4, elements: [192.0.2.1]}}
rules:
  - {name: own, match: arp.src.proto_ipv4 in @vips && eth.src == iface.mac, verdict: accept}
`

func TestApply(t *testing.T) {
	for hook, bypassed := range map[string]bool{"gate": false, "tc": true, "auto": false} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			policy := strings.ReplaceAll(vips, "HOOK", hook)
			if got := w.announce(false, 1, 2); got[1] != 1 || got[2] != 1 {
				t.Fatalf("without a guard: %v", got)
			}
			s := w.apply(policy)
			if len(s.Interfaces) != 1 || !s.Interfaces[0].Guarded || s.Interfaces[0].Name != "near" {
				t.Fatalf("status: %+v", s)
			}
			w.expect("in force", false, 1)
			if !bypassed {
				w.expect("with bypass", true, 1)
			}
			// The next process finds and adopts it.
			other := Host{w.Root, w.NetNS}
			must(t, other.AddToSet("vips", 0, []string{"192.0.2.2"}))
			w.expect("added", false, 1, 2)
			must(t, other.AddToSet("vips", bootTime()+int64(time.Minute), []string{"192.0.2.3"}))
			must(t, other.AddToSet("vips", bootTime()-1, []string{"192.0.2.2"}))
			w.expect("ended", false, 1, 3)
			s = w.apply(policy)
			if s.Generation != 2 {
				t.Errorf("generation %d", s.Generation)
			}
			w.expect("live elements stay", false, 1, 3)
			if n, err := w.DeleteFromSet("vips", []string{"192.0.2.1"}); n != 1 || err != nil {
				t.Errorf("%d %v", n, err)
			}
			w.expect("deleted", false, 3)
			w.apply(strings.ReplaceAll(policy, "192.0.2.1", "192.0.2.4, 192.0.2.5"))
			w.expect("another file", false, 3, 4, 5)
			must(t, w.Flush())
			w.expect("flushed", false, 1, 2, 3, 4, 5, 6)
			if s, err := w.Status(); err != nil || s.Enforcing {
				t.Errorf("%+v %v", s, err)
			}
			if _, err := w.Rules(); !errors.Is(err, ErrNothing) {
				t.Errorf("rules of nothing: %v", err)
			}
		})
	}
}

// expect says which of six addresses get out.
func (w *world) expect(when string, bypass bool, want ...byte) {
	w.t.Helper()
	got := w.announce(bypass, 1, 2, 3, 4, 5, 6)
	wanted := map[byte]int{}
	for _, x := range want {
		wanted[x] = 1
	}
	if !maps.Equal(got, wanted) {
		w.t.Errorf("%s: got out %v, want %v", when, got, want)
	}
}

// TestConfirm: the kernel goes back by itself; a confirmed policy stays.
func TestConfirm(t *testing.T) {
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			policy := strings.ReplaceAll(vips, "HOOK", hook)
			try := func(text string, d time.Duration) {
				t.Helper()
				_, err := w.Apply(Source{"test.yaml", []byte(text)}, ApplyOptions{Confirm: d})
				must(t, err)
			}
			try(policy, 2*time.Second)
			w.expect("pending", false, 1)
			time.Sleep(2100 * time.Millisecond)
			w.expect("gone back to nothing", false, 1, 2, 3, 4, 5, 6)
			if err := w.Confirm(); !errors.Is(err, ErrNotPending) {
				t.Errorf("confirming too late: %v", err)
			}
			first := w.apply(policy)
			second := strings.ReplaceAll(policy, "192.0.2.1", "192.0.2.2")
			try(second, 2*time.Second)
			must(t, w.AddToSet("vips", 0, []string{"192.0.2.6"}))
			w.expect("pending", false, 2, 6)
			time.Sleep(2100 * time.Millisecond)
			w.expect("gone back", false, 1, 6)
			s, err := w.Status()
			must(t, err)
			if s.Generation != first.Generation || s.Pending != nil {
				t.Errorf("%+v", s)
			}
			try(second, time.Minute)
			must(t, w.Rollback())
			w.expect("rolled back", false, 1, 6)
			try(second, 2*time.Second)
			must(t, w.Confirm())
			time.Sleep(2100 * time.Millisecond)
			w.expect("confirmed", false, 2, 6)
		})
	}
}
