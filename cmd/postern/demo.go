//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/frame"
)

const inUserNS = "POSTERN_DEMO_USERNS"

// demo returns the exit code. Without root it runs itself once more in a user
// namespace, where it is root of its own namespaces.
func demo(out, errs io.Writer) int {
	if os.Geteuid() != 0 && os.Getenv(inUserNS) == "" {
		return demoInUserNS(out, errs)
	}
	if err := runDemo(out); err != nil {
		fmt.Fprintf(errs, "postern demo: %v\n", err)
		if errors.Is(err, unix.EPERM) {
			fmt.Fprintln(errs, "remedy: run as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces)")
		}
		return exitMachine
	}
	return 0
}

func demoInUserNS(out, errs io.Writer) int {
	fmt.Fprintln(out, "Not root: using a user namespace.")
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

func runDemo(out io.Writer) error {
	pair, err := lab.New()
	if err != nil {
		return err
	}
	defer pair.Close()
	var conns [2]*packet.Conn
	for i := range conns {
		if err := pair.Do(i, func() (err error) {
			conns[i], err = packet.Listen(pair.Ifi[i], packet.Raw, unix.ETH_P_ALL, nil)
			return err
		}); err != nil {
			return err
		}
		defer conns[i].Close()
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FRAME\tSEEN AS\tARRIVED")
	for _, f := range demoFrames(pair.Ifi[0].HardwareAddr) {
		if _, err := conns[0].WriteTo(f.bytes, &packet.Addr{HardwareAddr: f.bytes[:6]}); err != nil {
			return err
		}
		ok, err := arrived(conns[1], f.bytes)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%t\n", f.name, seenAs(f.bytes), ok)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, "\nNothing is refused: this version parses frames and has no guard yet.")
	return err
}

type demoFrame struct {
	name  string
	bytes []byte
}

// demoFrames are ARP replies from mac: an honest one, a forged sender, and the
// same in the wrappings that hide it from a filter on the ethertype.
func demoFrames(mac net.HardwareAddr) []demoFrame {
	body := func(hw net.HardwareAddr, size byte) []byte {
		b := []byte{0, 1, 8, 0, size, 4, 0, 2}
		b = append(append(b, hw...), 192, 0, 2, 10)
		return append(append(b, 2, 0, 0, 0, 0, 2), 192, 0, 2, 11)
	}
	eth := func(between []byte, payload []byte) []byte {
		b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
		b = append(append(b, between...), payload...)
		return append(b, make([]byte, max(0, 60-len(b)))...)
	}
	victim := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	return []demoFrame{
		{"ARP reply", eth([]byte{8, 6}, body(mac, 6))},
		{"ARP reply, another's hardware address", eth([]byte{8, 6}, body(victim, 6))},
		{"the same in two VLAN tags", eth([]byte{0x81, 0, 0, 5, 0x81, 0, 0, 0, 8, 6}, body(victim, 6))},
		{"the same in LLC/SNAP", eth([]byte{0, 36, 0xaa, 0xaa, 3, 0, 0, 0, 8, 6}, body(victim, 6))},
		{"ARP with hw.size 255", eth([]byte{8, 6}, body(victim, 255))},
	}
}

func seenAs(b []byte) string {
	var f frame.Frame
	f.Decode(b)
	if f.Malformed != frame.CauseNone {
		return "malformed: " + f.Malformed.String()
	}
	if f.EtherType != unix.ETH_P_ARP {
		return fmt.Sprintf("ethertype %#04x", f.EtherType)
	}
	var p arp.Packet
	p.Decode(f.Payload)
	if p.Malformed != arp.CauseNone {
		return "malformed: " + p.Malformed.String()
	}
	ip := binary.BigEndian.AppendUint32(nil, p.SrcIPv4)
	forged := ""
	if string(p.SrcHW[:]) != string(b[6:12]) {
		forged = ", not eth.src"
	}
	return fmt.Sprintf("arp.opcode %d: %v is at %v%s", p.Opcode, net.IP(ip), net.HardwareAddr(p.SrcHW[:]), forged)
}

// arrived waits up to a second. The kernel itself sends on a fresh interface
// (IPv6), and takes a frame's first VLAN tag out of its bytes on receipt.
func arrived(c *packet.Conn, want []byte) (bool, error) {
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return false, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		got := string(buf[:n])
		if got == string(want) || got == string(want[:12])+string(want[16:]) {
			return true, nil
		}
	}
}
