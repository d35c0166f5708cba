package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoRights: a file that may not be read is the machine's refusal.
func TestNoRights(t *testing.T) {
	dir := fixtures(t, ".")
	for _, name := range []string{"good.yaml", "trace.pcap"} {
		if err := os.Chmod(filepath.Join(dir, name), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, tt := range []struct{ args, want string }{
		{"check good.yaml", "postern check: open good.yaml: permission denied\n"},
		{"match arp trace.pcap", "postern match: open trace.pcap: permission denied\n"},
		{"replay -f good.yaml trace.pcap", "postern replay: open good.yaml: permission denied\n"},
		{"explain -f good.yaml trace.pcap#1", "postern explain: open trace.pcap: permission denied\n"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var errs bytes.Buffer
			code := asNobody(func() int {
				return run(strings.Fields(tt.args), strings.NewReader(""), &bytes.Buffer{}, &errs)
			})
			if code != exitMachine || errs.String() != tt.want {
				t.Errorf("exit code %d: %s", code, errs.String())
			}
		})
	}
}

// asNobody calls f on a thread without root's rights over files.
func asNobody(f func() int) int {
	code := make(chan int)
	go func() {
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			_ = unix.Setfsuid(65534) // what follows shows whether it worked
		}
		code <- f()
	}()
	return <-code
}
