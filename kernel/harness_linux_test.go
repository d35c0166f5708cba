package kernel

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel/gate"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is two namespaces joined by near and far, of which the first can be guarded.
type world struct {
	*lab.Pair
	Host
	t testing.TB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces and eBPF")
	}
	if err := gate.Probe(0); err != nil {
		cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	p, err := lab.New()
	must(t, err)
	t.Cleanup(p.Close)
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	return &world{p, Host{Root: root, NetNS: int(p.NS[0])}, t}
}

// apply puts a policy in force that must be sound.
func (w *world) apply(policy string) *Status {
	w.t.Helper()
	s, err := w.Apply(Source{"test.yaml", []byte(policy)}, ApplyOptions{})
	must(w.t, err)
	return s
}

// frame is an ARP announcement of 192.0.2.x.
func (w *world) frame(x byte) []byte {
	b := make([]byte, 60)
	copy(b, "\xff\xff\xff\xff\xff\xff......\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01......\xc0\x00\x02.......\xc0\x00\x02.")
	copy(b[6:], w.Ifi[0].HardwareAddr)
	copy(b[22:], w.Ifi[0].HardwareAddr)
	b[31], b[41] = x, x
	clear(b[32:38])
	return b
}

// announce says which of the addresses 192.0.2.x get out: it sends an announcement of each by a
// socket, with PACKET_QDISC_BYPASS if bypass.
func (w *world) announce(bypass bool, xs ...byte) map[byte]int {
	w.t.Helper()
	var far *packet.Conn
	must(w.t, w.Do(1, func() (err error) {
		far, err = packet.Listen(w.Ifi[1], packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	defer far.Close()
	must(w.t, w.Do(0, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if bypass {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return err
			}
		}
		for _, x := range xs {
			err := unix.Sendto(fd, w.frame(x), 0, &unix.SockaddrLinklayer{Ifindex: w.Ifi[0].Index, Protocol: 0x0608})
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				return fmt.Errorf("sending: %w", err)
			}
		}
		return nil
	}))
	return w.arrivals(far)
}

func (w *world) arrivals(far *packet.Conn) map[byte]int {
	w.t.Helper()
	out, buf := map[byte]int{}, make([]byte, 2048)
	for {
		must(w.t, far.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		n, _, err := far.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		must(w.t, err)
		if n >= 42 && buf[12] == 8 && buf[13] == 6 {
			out[buf[31]]++
		}
	}
}
