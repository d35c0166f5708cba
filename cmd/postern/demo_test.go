//go:build linux

package main

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
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
		t.Fatalf("exit code %d: %s\n%s", code, errs.String(), out.String())
	}
	for _, line := range []string{
		`announcement of the own virtual address +accept +announce-own-vips +yes`,
		`announcement of another node's address +drop +no-foreign-arp +no`,
		`reply with another's hardware address +drop +own-hardware-address +no`,
		`a victim's address in LLC/SNAP +drop +no-foreign-arp +no`,
		`ARP with a hardware size of 255 +drop +malformed +no`,
		`DISCOVER +accept +own-lease +yes`,
		`DISCOVER with a forged option 82 +drop +no-relay +no`,
		`OFFER of a rogue server +drop +no-rogue-server +no`,
		`3 honest frames arrived, each once; 9 forged ones were refused, and none arrived\.`,
	} {
		if !regexp.MustCompile(line).MatchString(out.String()) {
			t.Errorf("no line like %q in\n%s", line, out.String())
		}
	}
}

// TestDemoReport: the demo must not call a hole a success.
func TestDemoReport(t *testing.T) {
	for _, f := range []demoFrame{
		{name: "a forged frame that arrived", arrived: 1},
		{name: "an honest frame that did not", honest: true},
		{name: "an honest frame that came twice", honest: true, arrived: 2},
	} {
		var out strings.Builder
		if err := report(&out, false, []demoFrame{f}); !errors.Is(err, errDemo) || !strings.Contains(out.String(), "WRONG") {
			t.Errorf("%s: %v\n%s", f.name, err, out.String())
		}
	}
	var out strings.Builder
	good := []demoFrame{{honest: true, arrived: 1, decision: firewall.Decision{Verdict: firewall.Accept}}, {}}
	if err := report(&out, false, good); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
