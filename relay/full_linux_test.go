package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/relay/binding"
)

// TestFullDisk: a relay whose static bindings have changed begins, and serves, though the disk is full. Those of before are in force
// until there is room, and those of the configuration from then on, also for the next one.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		labtest.Cannot(t, "needs root to mount a small disk: "+err.Error())
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	begin := func(statics string) *Agent {
		t.Helper()
		c, err := ParseConfig("relay.yaml", []byte("database: "+dir+"/db\nservers: [192.0.2.53]\ninterfaces: [{names: [eth1], address: 10.1.0.1}]\nstatic:\n"+statics))
		must(t, err)
		a, err := New(c, Options{Log: slog.New(slog.DiscardHandler)})
		must(t, err)
		return a
	}
	const before = "  - {mac: '02:00:00:00:00:01', ip: 10.9.0.1, interface: eth1}\n"
	var after strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&after, "  - {mac: '02:00:00:00:00:02', ip: 10.2.%d.%d, interface: eth1}\n", i/250, i%250)
	}
	must(t, begin(before).Close())
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	a := begin(after.String())
	old, new := binding.IPv4(0x0a090001), binding.IPv4(0x0a020000)
	inForce := func(when string, want binding.IPv4, n int) {
		t.Helper()
		if _, ok := a.table.Get(want); !ok || a.Len() != n {
			t.Errorf("%s: %d bindings, %v among them: %t", when, a.Len(), want, ok)
		}
	}
	inForce("with a full disk", old, 1)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	ended := make(chan error)
	go func() { ended <- a.ledger.run(ctx) }()
	if err := a.Reload(ctx, a.config.Load()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a reload that cannot be written: %v", err)
	}
	stop()
	must(t, <-ended)
	a.ledger.tick(&page{})
	inForce("while it is full", old, 1)
	must(t, os.Remove(ballast))
	a.ledger.tick(&page{})
	inForce("with room", new, 3000)
	must(t, a.Close())
	a = begin(after.String())
	inForce("at the next start", new, 3000)
	must(t, a.Close())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
