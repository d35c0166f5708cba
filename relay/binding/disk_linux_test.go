package binding

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A full disk fails the commit, loses nothing that was there, and is over when there is room.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("needs root to mount a small disk: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s := open(t, filepath.Join(dir, "db"))
	ballast := filepath.Join(dir, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 256<<10), 0o600))
	n := IPv4(0)
	var err error
	for ; err == nil && n < 1<<20; n += 256 {
		err = s.Commit(many(n, 256))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%d bindings: %v, want a full disk", n, err)
	}
	kept := n - 256
	check := func() {
		t.Helper()
		if got := all(t, s); len(got) != int(kept) {
			t.Errorf("%d bindings, %d were committed", len(got), kept)
		}
	}
	check()
	must(t, s.Close())
	s = open(t, filepath.Join(dir, "db"))
	check()
	must(t, os.Remove(ballast))
	must(t, s.Commit(many(n, 1)))
	kept++
	check()
}
