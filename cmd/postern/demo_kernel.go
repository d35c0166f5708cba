//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/bpf"
)

// demoSend is something that sends a frame without knowing of the guard.
type demoSend struct {
	demoRow
	run func() error
	// is finds the frame among those that arrive.
	is func(frame []byte) bool
}

// demoKernelPart puts the policy in force in the near namespace, for every program there.
func demoKernelPart(out io.Writer, colour paint, pair *lab.Pair, frames []demoFrame) error {
	root, unmount, err := lab.BPFFS()
	if err != nil {
		return leftOut(out, err)
	}
	defer unmount()
	k := &demoKernel{pair: pair, host: kernel.Host{Root: root, NetNS: int(pair.NS[0])}}
	if k.far, err = pair.Receive(1); err != nil {
		return leftOut(out, err)
	}
	defer k.far.Close()
	fmt.Fprint(out, "\nThe same policy in the kernel, for programs that know nothing of it:\n")
	sends, missing := k.sends(frames)
	for _, m := range missing {
		fmt.Fprintln(out, "Left out: "+m)
	}
	if err := k.unguarded(sends); err != nil {
		return err
	}
	s, err := k.host.Apply(kernel.Source{Name: "demo.yaml", Text: demoPolicy}, kernel.ApplyOptions{})
	if err != nil {
		return leftOut(out, err)
	}
	if s.Interfaces[0].Hook != "gate" {
		fmt.Fprintln(out, "Left out: what is sent with PACKET_QDISC_BYPASS, which this kernel has no hook for; see postern doctor")
		sends = plain(sends)
	}
	rows := make([]*demoRow, len(sends))
	for i := range sends {
		if err := k.guarded(&sends[i]); err != nil {
			return fmt.Errorf("%s: %w", sends[i].name, err)
		}
		rows[i] = &sends[i].demoRow
	}
	if err := report(out, colour, rows); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Before the policy was in force all %d arrived.\n", len(sends))
	return err
}

// leftOut says that this machine cannot do the part; other errors are returned.
func leftOut(out io.Writer, err error) error {
	if !errors.Is(err, os.ErrPermission) && !errors.Is(err, bpf.ErrNotSupported) {
		return err
	}
	_, e := fmt.Fprintf(out, "\nLeft out: the same policy in the kernel: %v\n", err)
	return e
}

type demoKernel struct {
	pair *lab.Pair
	host kernel.Host
	far  *lab.Receiver
}

// The sections of the table.
const (
	byArping  = "arping"
	byUdhcpc  = "udhcpc"
	byBypass  = "a program with PACKET_QDISC_BYPASS"
	byTXRing  = "a program with PACKET_TX_RING"
	byTXRingB = "a program with both"
)

func (k *demoKernel) sends(frames []demoFrame) (sends []demoSend, missing []string) {
	arping := func(ip string) func() error {
		return func() error {
			// It speaks for addresses of this machine only.
			if err := k.address(ip); err != nil {
				return err
			}
			return k.program("arping", "-A", "-c", "1", "-w", "1", "-I", "near", "-s", ip, ip)()
		}
	}
	if iputilsArping() {
		sends = append(sends,
			demoSend{demoRow{by: byArping, name: "announcement of the own virtual address", honest: true}, arping("192.0.2.10"), displayed("arp.src.proto_ipv4 == 192.0.2.10")},
			demoSend{demoRow{by: byArping, name: "announcement of another node's address"}, arping("192.0.2.11"), displayed("arp.src.proto_ipv4 == 192.0.2.11")})
	} else {
		missing = append(missing, "iputils' arping, which is not installed (apt-get install iputils-arping)")
	}
	udhcpc := func(more ...string) func() error {
		return k.program("udhcpc", append([]string{"-i", "near", "-f", "-n", "-q", "-t", "1", "-T", "0", "-s", "/bin/true"}, more...)...)
	}
	if _, err := exec.LookPath("udhcpc"); err == nil {
		sends = append(sends,
			demoSend{demoRow{by: byUdhcpc, name: "DISCOVER", honest: true}, udhcpc(), displayed("dhcp.option.dhcp == 1 && !(dhcp.option.type == 82)")},
			demoSend{demoRow{by: byUdhcpc, name: "DISCOVER with a forged option 82"}, udhcpc("-x", "0x52:010465746837"), displayed("dhcp.option.type == 82")})
	} else {
		missing = append(missing, "udhcpc, which is not installed (apt-get install udhcpc)")
	}
	for _, how := range []struct {
		by           string
		bypass, ring bool
	}{{byBypass, true, false}, {byTXRing, false, true}, {byTXRingB, true, true}} {
		for i := range frames {
			f := &frames[i]
			if !f.again {
				continue
			}
			sends = append(sends, demoSend{demoRow{by: how.by, name: f.name, honest: f.honest},
				func() error { return k.socket(f.bytes, how.bypass, how.ring) },
				func(frame []byte) bool { return string(frame) == string(f.bytes) }})
		}
	}
	return sends, missing
}

// plain leaves out those that bypass the hooks of tc.
func plain(sends []demoSend) (rest []demoSend) {
	for _, s := range sends {
		if s.by != byBypass && s.by != byTXRingB {
			rest = append(rest, s)
		}
	}
	return rest
}

func iputilsArping() bool {
	version, err := exec.Command("arping", "-V").Output()
	return err == nil && strings.Contains(string(version), "iputils")
}

// displayed finds the frames that a display filter shows.
func displayed(expr string) func([]byte) bool {
	e, err := filter.Parse(expr, nil)
	if err != nil {
		panic(err) // it is one of the constants above
	}
	return func(frame []byte) bool {
		var p filter.Packet
		p.Decode(frame, nil)
		return filter.Eval(e, &p, nil)
	}
}

// program runs a program in the near namespace. That nobody answers it is no error.
func (k *demoKernel) program(name string, args ...string) func() error {
	return func() error {
		return k.pair.Do(0, func() error {
			said, err := exec.Command(name, args...).CombinedOutput()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == 1 {
				return nil
			}
			if err != nil {
				return fmt.Errorf("%s: %w: %s", name, err, said)
			}
			return nil
		})
	}
}

// address gives the near interface an address, unless it has it.
func (k *demoKernel) address(ip string) error {
	return k.pair.Do(0, func() error {
		addr, err := netlink.ParseAddr(ip + "/32")
		if err != nil {
			return err
		}
		return netlink.AddrReplace(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: k.pair.Ifi[0].Index}}, addr)
	})
}

// unguarded shows that all arrives while there is no guard.
func (k *demoKernel) unguarded(sends []demoSend) error {
	for _, s := range sends {
		if err := s.run(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if n, err := k.arrived(s.is, true); err != nil || n != 1 {
			return errors.Join(err, fmt.Errorf("%w: without a guard, %q by %s arrived %d times", errDemo, s.name, s.by, n))
		}
	}
	return nil
}

// guarded sends once more, and finds out who decided.
func (k *demoKernel) guarded(s *demoSend) error {
	before, err := k.host.Rules()
	if err != nil {
		return err
	}
	if err := s.run(); err != nil {
		return err
	}
	if s.arrived, err = k.arrived(s.is, s.honest); err != nil {
		return err
	}
	after, err := k.host.Rules()
	if err != nil {
		return err
	}
	s.rule = "nobody saw it"
	for i := range after {
		if after[i].Frames > before[i].Frames {
			s.rule = after[i].Name
			if after[i].Verdict == firewall.Accept.String() {
				s.verdict = firewall.Accept
			}
			break
		}
	}
	return nil
}

// arrived counts how often a frame arrived: it waits longer for one that should.
func (k *demoKernel) arrived(is func([]byte) bool, should bool) (n int, err error) {
	const patience, quiet = 2 * time.Second, 100 * time.Millisecond
	for within := patience; ; {
		if n > 0 || !should {
			within = quiet
		}
		frame, err := k.far.Next(within)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if is(frame) {
			n++
		}
	}
}
