//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
)

const inUserNS = "POSTERN_DEMO_USERNS"

// demo returns the exit code. Without root it runs itself once more in a user
// namespace, where it is root of its own namespaces.
func demo(out, errs io.Writer) int {
	if os.Geteuid() != 0 && os.Getenv(inUserNS) == "" {
		return demoInUserNS(out, errs)
	}
	switch err := runDemo(out, newPaint(out)); {
	case errors.Is(err, errDemo):
		fmt.Fprintf(errs, "postern demo: %v\n", err)
		return exitNo
	case err != nil:
		fmt.Fprintf(errs, "postern demo: %v\n", err)
		if errors.Is(err, unix.EPERM) {
			fmt.Fprintln(errs, "remedy: run as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces)")
		}
		return exitMachine
	}
	return 0
}

func demoInUserNS(out, errs io.Writer) int {
	fmt.Fprintln(out, "Not root: all of this runs in a user namespace. It leaves out nothing: a guarded socket needs CAP_NET_RAW there, no more.")
	cmd := exec.Command("/proc/self/exe", "demo")
	cmd.Env = append(os.Environ(), inUserNS+"=1")
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintf(errs, "postern demo: user namespace: %v\nremedy: run as root\n", err)
		return exitMachine
	}
	return 0
}

// errDemo is an outcome that should not have been.
var errDemo = errors.New("the guard did not do as its policy says")

func runDemo(out io.Writer, colour paint) error {
	pair, err := lab.New()
	if err != nil {
		return err
	}
	defer pair.Close()
	guard, err := newDemoGuard(pair)
	if err != nil {
		return err
	}
	defer guard.close()
	var far *packet.Conn
	if err := pair.Do(1, func() (err error) {
		far, err = packet.Listen(pair.Ifi[1], packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}); err != nil {
		return err
	}
	defer far.Close()

	frames := demoFrames(guard.mac)
	accepted := 0
	for i := range frames {
		if err := guard.send(&frames[i]); err != nil {
			return fmt.Errorf("%s: %w", frames[i].name, err)
		}
		if frames[i].decision.Verdict != firewall.Drop {
			accepted++
		}
	}
	if err := countArrivals(far, frames, accepted); err != nil {
		return err
	}
	return report(out, colour, frames)
}

// demoGuard is the near side: guarded sockets of one firewall. It is the
// classifier of them all, to keep what was decided and on which bytes.
type demoGuard struct {
	*demoSockets
	fw    *firewall.Firewall
	frame *demoFrame
}

func (g *demoGuard) Classify(p *filter.Packet) firewall.Decision {
	g.frame.decision = g.fw.Classify(p)
	g.frame.bytes = append([]byte(nil), p.Bytes(filter.LayerFrame)...)
	return g.frame.decision
}

// send expects of the socket what the firewall decided: an error if it dropped.
func (g *demoGuard) send(f *demoFrame) error {
	g.frame = f
	err := f.send(g.demoSockets)
	if f.bytes == nil {
		return fmt.Errorf("never came to the guard: %w", err)
	}
	var blocked *afpacket.BlockedError
	if f.decision.Verdict == firewall.Drop && errors.As(err, &blocked) {
		return nil
	}
	return err
}

// countArrivals reads until all that was accepted is there, and a while longer
// for what should not be.
func countArrivals(c *packet.Conn, frames []demoFrame, accepted int) error {
	const patience, quiet = 2 * time.Second, 200 * time.Millisecond
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for seen := 0; ; {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range frames {
			if sameFrame(buf[:n], frames[i].bytes) {
				frames[i].arrived++
				seen++
			}
		}
		if seen >= accepted {
			if err := c.SetReadDeadline(time.Now().Add(quiet)); err != nil {
				return err
			}
			accepted = len(frames) + 1 // the quiet has begun
		}
	}
}

// sameFrame allows for the kernel, which takes a frame's first VLAN tag out of
// its bytes on receipt.
func sameFrame(got, sent []byte) bool {
	return string(got) == string(sent) || string(got) == string(sent[:12])+string(sent[16:])
}

func report(out io.Writer, colour paint, frames []demoFrame) error {
	fmt.Fprintf(out, "%-44s %-7s  %-20s  %s\n", "FRAME", "VERDICT", "RULE", "ARRIVED")
	var honest, forged, wrong int
	section := ""
	for i := range frames {
		f := &frames[i]
		if f.by != section {
			section = f.by
			fmt.Fprintln(out, colour.in(cyan, section))
		}
		want := 0
		if f.honest {
			honest, want = honest+1, 1
		} else {
			forged++
		}
		note := map[int]string{0: "no", 1: "yes"}[f.arrived]
		if note == "" {
			note = fmt.Sprintf("%d times", f.arrived)
		}
		if f.arrived != want {
			wrong++
			note += colour.in(red, "  WRONG")
		}
		fmt.Fprintf(out, "  %-42s %s  %-20s  %s\n", f.name, colour.verdict(f.decision.Verdict), f.decision.RuleName(), note)
	}
	if wrong > 0 {
		return fmt.Errorf("%w: %d of %d frames", errDemo, wrong, len(frames))
	}
	_, err := fmt.Fprintf(out, "\n%d honest frames arrived, each once; %d forged ones were refused, and none arrived.\n", honest, forged)
	return err
}
