//go:build linux

package main

import (
	"os"
	"strings"
	"testing"
)

func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI runs as root")
		}
		t.Skip("needs root for network namespaces")
	}
	var out, errs strings.Builder
	if code := demo(&out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	if n := strings.Count(out.String(), "  true\n"); n != 5 {
		t.Errorf("%d of 5 frames arrived:\n%s", n, out.String())
	}
	if n := strings.Count(out.String(), "not eth.src"); n != 3 {
		t.Errorf("%d of 3 forged replies recognised:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "malformed: ARP hw.size is not 6") {
		t.Errorf("the malformed frame is not recognised:\n%s", out.String())
	}
}
