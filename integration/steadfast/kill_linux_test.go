package steadfast

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/postern-fw/postern/kernel"
)

// TestKill: apply, run, set and flush are killed at random moments, 200 times, under full-rate sending
// from two sockets. What is in force afterwards is one policy, whole; after a flush that was killed, that
// or nothing.
func TestKill(t *testing.T) {
	if _, err := exec.LookPath("unshare"); err != nil {
		cannot(t, "needs unshare (util-linux)")
	}
	times := 200
	if raceEnabled {
		times = 8
	}
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(kind int) { must(t, os.WriteFile(file, []byte(policy("gate", kind)), 0o600)) }
	apply := func(kind int) {
		_, err := w.Apply(kernel.Source{Name: file, Text: []byte(policy("gate", kind))}, kernel.ApplyOptions{})
		must(t, err)
	}
	apply(0)
	letGo, letGoBypass, out := w.count(w.letGo, honest), w.count(w.letGo, honestBypass), w.out()
	f := w.flood(false, true)
	lostBypass := func() int64 { return f.sent[honestBypass].Load() - (w.count(w.letGo, honestBypass) - letGoBypass) }
	killed, unseen := map[string]int{}, int64(0)
	for i, n := 0, 0; n < times; i++ {
		if i > 10*times {
			t.Fatalf("only %d of %d commands were killed before their end", n, i)
		}
		write(i)
		op := [][]string{
			{"apply", "-f", file}, {"run", "-f", file}, {"set", "add", "live", fmt.Sprintf("198.18.0.%d", i%250), "--ttl", "1h"},
			{"set", "del", "vips", "198.51.100.1"}, {"apply", "-f", file, "--confirm", "1h"}, {"flush"},
		}[i%6]
		flush := op[0] == "flush"
		if flush {
			if got := w.out() - out; got != 0 {
				t.Errorf("%d forged frames got out", got)
			}
			f.still(func() { unseen -= lostBypass() })
		}
		most := 300 * time.Millisecond
		if op[0] == "set" || flush {
			most = 60 * time.Millisecond
		}
		if w.kill(time.Duration(random.Int64N(int64(most))), op) {
			killed[op[0]]++
			n++
		}
		s, err := w.Status()
		if err != nil {
			t.Fatalf("after %v was killed: %v", op, err)
		}
		if flush {
			if s.Enforcing && !s.Interfaces[0].Guarded {
				t.Errorf("after a flush that was killed: %+v", s)
			}
			apply(i)
			out = w.out() // what a flush lets out, it is asked to
			// Without a gate nobody counts what is sent with bypass.
			f.still(func() { unseen += lostBypass() })
			continue
		}
		if !s.Enforcing || len(s.Interfaces) != 1 || !s.Interfaces[0].Guarded {
			t.Errorf("after %v was killed: %+v", op, s)
		}
	}
	f.stop()
	if got := w.out() - out; got != 0 {
		t.Errorf("%d forged frames got out", got)
	}
	plain := w.count(w.letGo, honest) - letGo
	if plain != f.sent[honest].Load() {
		t.Errorf("%d of %d honest frames were let go", plain, f.sent[honest].Load())
	}
	if lost := lostBypass() - unseen; lost != 0 {
		t.Errorf("%d honest frames with bypass were lost", lost)
	}
	t.Logf("killed in time: %v; %d forged frames, %d got out but while flushed; %d of %d honest ones were let go, and %d with bypass, of which none was missed but while flushed",
		killed, f.sent[forged].Load(), w.out()-out, plain, f.sent[honest].Load(), f.sent[honestBypass].Load())
	if len(killed) < 4 && !raceEnabled {
		t.Errorf("the moments prove little: %v", killed)
	}
}

// kill runs a command and kills it after a while; it reports whether that came before its end.
func (w *world) kill(after time.Duration, args []string) bool {
	w.t.Helper()
	cmd, err := w.command(args...)
	must(w.t, err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	must(w.t, w.Do(0, cmd.Start))
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			w.t.Errorf("postern %v: %v\n%s", args, err, errs.String())
		}
		return false
	case <-time.After(after):
	}
	err = cmd.Process.Kill()
	<-ended
	if errors.Is(err, os.ErrProcessDone) {
		return false
	}
	must(w.t, err)
	return true
}
