//go:build linux

package main

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for network namespaces")
	}
	t.Setenv(asCommand, "1") // it runs itself once more
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
	_, kernelPart, _ := strings.Cut(out.String(), "The same policy in the kernel, for programs that know nothing of it:\n")
	if why := kernelWithout(t); why != "" {
		labtest.Cannot(t, "only the part without the kernel was tried: "+why)
	}
	for _, line := range []string{
		`\narping\n +announcement of the own virtual address +accept +announce-own-vips +yes\n +announcement of another node's address +drop +no-foreign-arp +no`,
		`\nudhcpc\n +DISCOVER +accept +own-lease +yes\n +DISCOVER with a forged option 82 +drop +no-relay +no`,
		`\na program with PACKET_QDISC_BYPASS\n +announcement of the own virtual address +accept +announce-own-vips +yes\n`,
		`\na program with both\n(.*\n){3} +OFFER of a rogue server +drop +no-rogue-server +no\n`,
		`5 honest frames arrived, each once; 11 forged ones were refused, and none arrived\.\nBefore the policy was in force all 16 arrived\.`,
	} {
		if !regexp.MustCompile(line).MatchString(kernelPart) {
			t.Errorf("no line like %q in\n%s", line, kernelPart)
		}
	}
}

// TestDemoAsNobody: without root it says what it leaves out.
func TestDemoAsNobody(t *testing.T) {
	cmd := commandOf(t, "demo")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(string(exit.Stderr), "user namespace") {
		labtest.Cannot(t, "needs unprivileged user namespaces: "+string(exit.Stderr))
	}
	if err != nil || !strings.Contains(string(out), "9 forged ones were refused, and none arrived.") ||
		!strings.Contains(string(out), "Left out without root: the same policy in the kernel") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDemoReport: the demo must not call a hole a success.
func TestDemoReport(t *testing.T) {
	for _, f := range []*demoRow{
		{name: "a forged frame that arrived", arrived: 1},
		{name: "an honest frame that did not", honest: true},
		{name: "an honest frame that came twice", honest: true, arrived: 2},
	} {
		var out strings.Builder
		if err := report(&out, false, []*demoRow{f}); !errors.Is(err, errDemo) || !strings.Contains(out.String(), "WRONG") {
			t.Errorf("%s: %v\n%s", f.name, err, out.String())
		}
	}
	var out strings.Builder
	good := []*demoRow{{honest: true, arrived: 1, verdict: firewall.Accept}, {}}
	if err := report(&out, false, good); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
}
