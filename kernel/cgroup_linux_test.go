package kernel

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCgroups: a cgroup that a policy names is known when it is made, and when it is made anew.
func TestCgroups(t *testing.T) {
	w := newWorld(t)
	mount, err := cgroup2Mount()
	if err != nil {
		cannot(t, err.Error())
	}
	name := fmt.Sprintf("/postern-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	dir := filepath.Join(mount, name)
	t.Cleanup(func() { os.Remove(dir) })
	w.apply("policy: p\nguard: [{interfaces: [near]}]\nrules: [{name: agent, match: 'sender.cgroup == \"" + name + "\"', verdict: accept}]\n")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := w.Follow(ctx, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
			t.Error(err)
		}
	})
	w.expect("outside", false)
	for _, when := range []string{"made", "made anew"} {
		must(t, os.Mkdir(dir, 0o755))
		got := map[byte]int{}
		for deadline := time.Now().Add(10 * time.Second); len(got) == 0 && time.Now().Before(deadline); {
			// Only sockets that are made inside count; threads cannot be moved by themselves.
			was, err := os.ReadFile("/proc/self/cgroup")
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0))
			got = w.announce(false, 1)
			must(t, os.WriteFile(filepath.Join(mount, unified(string(was)), "cgroup.procs"), []byte("0"), 0))
		}
		if got[1] != 1 {
			t.Errorf("%s: %v", when, got)
		}
		for deadline := time.Now().Add(5 * time.Second); os.Remove(dir) != nil; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the cgroup cannot be removed")
			}
		}
	}
}

// unified is the path in the line of /proc/self/cgroup for cgroup v2.
func unified(lines string) string {
	for _, line := range strings.Split(lines, "\n") {
		if len(line) > 3 && line[:3] == "0::" {
			return line[3:]
		}
	}
	return "/"
}
