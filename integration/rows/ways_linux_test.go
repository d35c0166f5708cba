package rows

import (
	"errors"
	"net"
	"testing"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/integration/lab"
)

// A way is a kind of socket that sends frames as they are, without a guard in process.
type way struct {
	name string
	send func(ifi *net.Interface, frames [][]byte) error
}

// ways are those that differ in which hooks of the sender's own device they pass.
var ways = []way{
	{"packet socket", bySocket(false)},
	{"packet socket, bypass", bySocket(true)},
	{"TX_RING", byRing(false)},
	{"TX_RING, bypass", byRing(true)},
	{"AF_XDP", byXDP},
}

func bySocket(bypass bool) func(*net.Interface, [][]byte) error {
	return func(ifi *net.Interface, frames [][]byte) error {
		c, err := afpacket.Listen(ifi, afpacket.Raw, 0, &afpacket.Config{Bypass: bypass})
		if err != nil {
			return err
		}
		defer c.Close()
		for _, f := range frames {
			// That it is refused is not the test's concern but the sender's.
			if _, err := c.WriteTo(f, &packet.Addr{HardwareAddr: ifi.HardwareAddr}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
		return nil
	}
}

func byRing(bypass bool) func(*net.Interface, [][]byte) error {
	return func(ifi *net.Interface, frames [][]byte) error {
		r, err := afpacket.OpenRing(ifi, len(frames), &afpacket.Config{Bypass: bypass})
		if err != nil {
			return err
		}
		for _, f := range frames {
			if _, err := r.Write(f); err != nil {
				return errors.Join(err, r.Close())
			}
		}
		return errors.Join(r.Flush(), r.Close())
	}
}

// by sends frames by the device at end i of a pair.
func (w way) by(t testing.TB, p *lab.Pair, i int, frames ...[]byte) {
	t.Helper()
	if err := p.Do(i, func() error { return w.send(p.Ifi[i], frames) }); err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
}
