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

// demoInside says in the environment that this is the process inside of the demo's
// namespaces, and whether it is root outside of them, too.
const (
	demoInside = "POSTERN_DEMO"
	demoRoot   = "root"
	demoUser   = "user namespace"
)

// demo returns the exit code. It runs itself once more in namespaces of its own: as root one
// for mounts, so that what is pinned ends with it, else a user namespace, where
// it is root of its own network.
func demo(out, errs io.Writer) int {
	inside := os.Getenv(demoInside)
	if inside == "" {
		return demoInNamespaces(out, errs)
	}
	switch err := runDemo(out, newPaint(out), inside == demoRoot); {
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

func demoInNamespaces(out, errs io.Writer) int {
	cmd := exec.Command("/proc/self/exe", "demo")
	cmd.Stdout, cmd.Stderr = out, errs
	inside := demoRoot
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	} else {
		fmt.Fprintln(out, "Not root: all of this runs in a user namespace. A guarded socket needs CAP_NET_RAW there, no more.")
		inside = demoUser
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
	cmd.Env = append(os.Environ(), demoInside+"="+inside)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintf(errs, "postern demo: namespaces of its own: %v\nremedy: run as root\n", err)
		return exitMachine
	}
	return 0
}

// errDemo is an outcome that should not have been.
var errDemo = errors.New("the guard did not do as its policy says")

func runDemo(out io.Writer, colour paint, root bool) error {
	pair, err := lab.New()
	if err != nil {
		return err
	}
	defer pair.Close()
	frames, err := demoSocketPart(out, colour, pair)
	if err != nil {
		return err
	}
	if !root {
		_, err := fmt.Fprintln(out, "\nLeft out without root: the same policy in the kernel, for all programs, whatever sockets they use.")
		return err
	}
	return demoKernelPart(out, colour, pair, frames)
}

// demoSocketPart sends frames through guarded sockets.
func demoSocketPart(out io.Writer, colour paint, pair *lab.Pair) ([]demoFrame, error) {
	guard, err := newDemoGuard(pair)
	if err != nil {
		return nil, err
	}
	defer guard.close()
	var far *packet.Conn
	if err := pair.Do(1, func() (err error) {
		far, err = packet.Listen(pair.Ifi[1], packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}); err != nil {
		return nil, err
	}
	defer far.Close()

	frames := demoFrames(guard.mac)
	accepted := 0
	for i := range frames {
		if err := guard.send(&frames[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", frames[i].name, err)
		}
		if frames[i].verdict != firewall.Drop {
			accepted++
		}
	}
	if err := countArrivals(far, frames, accepted); err != nil {
		return nil, err
	}
	rows := make([]*demoRow, len(frames))
	for i := range frames {
		rows[i] = &frames[i].demoRow
	}
	return frames, report(out, colour, rows)
}

// demoGuard is the near side: guarded sockets of one firewall. It is the
// classifier of them all, to keep what was decided and on which bytes.
type demoGuard struct {
	*demoSockets
	fw    *firewall.Firewall
	frame *demoFrame
}

func (g *demoGuard) Classify(p *filter.Packet) firewall.Decision {
	d := g.fw.Classify(p)
	g.frame.verdict, g.frame.rule = d.Verdict, d.RuleName()
	g.frame.bytes = append([]byte(nil), p.Bytes(filter.LayerFrame)...)
	return d
}

// send expects of the socket what the firewall decided: an error if it dropped.
func (g *demoGuard) send(f *demoFrame) error {
	g.frame = f
	err := f.send(g.demoSockets)
	if f.bytes == nil {
		return fmt.Errorf("never came to the guard: %w", err)
	}
	var blocked *afpacket.BlockedError
	if f.verdict == firewall.Drop && errors.As(err, &blocked) {
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

// demoRow is a line of the demo's table.
type demoRow struct {
	by, name string
	honest   bool
	verdict  firewall.Verdict
	rule     string
	arrived  int
}

func report(out io.Writer, colour paint, rows []*demoRow) error {
	fmt.Fprintf(out, "%-44s %-7s  %-20s  %s\n", "FRAME", "VERDICT", "RULE", "ARRIVED")
	var honest, forged, wrong int
	section := ""
	for _, r := range rows {
		if r.by != section {
			section = r.by
			fmt.Fprintln(out, colour.in(cyan, section))
		}
		want := 0
		if r.honest {
			honest, want = honest+1, 1
		} else {
			forged++
		}
		note := map[int]string{0: "no", 1: "yes"}[r.arrived]
		if note == "" {
			note = fmt.Sprintf("%d times", r.arrived)
		}
		if r.arrived != want {
			wrong++
			note += colour.in(red, "  WRONG")
		}
		fmt.Fprintf(out, "  %-42s %s  %-20s  %s\n", r.name, colour.verdict(r.verdict), r.rule, note)
	}
	if wrong > 0 {
		return fmt.Errorf("%w: %d of %d frames", errDemo, wrong, len(rows))
	}
	_, err := fmt.Fprintf(out, "\n%d honest frames arrived, each once; %d forged ones were refused, and none arrived.\n", honest, forged)
	return err
}
