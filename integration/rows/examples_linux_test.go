package rows

import (
	"encoding/binary"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mdlayher/packet"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestOwnTests: the frames of each example's own tests, sent by the device that it guards or, where they
// come in, to it. Those that it refuses do not arrive, the others do, once. Examples for
// ingress alone are TestSpoofingContainer's and TestReturnTraffic's.
func TestOwnTests(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	must(t, err)
	for _, file := range files {
		name := filepath.Base(file)
		text := example(t, name)
		policy, _, err := firewall.Parse(name, []byte(text))
		must(t, err)
		if policy.Guard[0].Direction == firewall.Ingress {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.join("eth0", "peer")
			must(t, p.SetHardwareAddr(0, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
			far := receive(t, p)
			// AF_XDP passes no egress hook. Through the gate, a ring with bypass sends again and
			// again what it hears was not taken.
			for _, way := range ways[:3] {
				for _, guarded := range []bool{false, true} {
					must(t, w.Flush())
					if guarded {
						w.guard(text)
					}
					out, in, got := newSent(policy, false), newSent(policy, true), map[string]int{}
					out.by(t, way, p, 0)
					must(t, far.Drain(got))
					out.compare(t, way, guarded, got)
					stack := in.listen(t, p)
					in.by(t, way, p, 1)
					in.compare(t, way, guarded, stack())
				}
			}
		})
	}
}

// sent are the frames of a policy's tests that go out, or come in.
type sent map[string]firewall.Test

func newSent(policy *firewall.Policy, in bool) sent {
	s := sent{}
	for _, c := range policy.Tests {
		if c.Ingress == in {
			s[string(c.Frame)] = c
		}
	}
	return s
}

// by sends them by the device at end i of a pair.
func (s sent) by(t *testing.T, way way, p *lab.Pair, i int) {
	t.Helper()
	var frames [][]byte
	for f := range s {
		frames = append(frames, []byte(f))
	}
	if len(frames) > 0 {
		way.by(t, p, i, frames...)
	}
}

// listen opens a socket for each of their EtherTypes at the first end, which get what tc has let come
// in, and gives what reads them.
func (s sent) listen(t *testing.T, p *lab.Pair) (counts func() map[string]int) {
	t.Helper()
	conns := map[uint16]*packet.Conn{}
	for f := range s {
		typ := binary.BigEndian.Uint16([]byte(f[12:]))
		if conns[typ] != nil {
			continue
		}
		must(t, p.Do(0, func() (err error) {
			conns[typ], err = packet.Listen(p.Ifi[0], packet.Raw, int(typ), nil)
			return err
		}))
	}
	return func() map[string]int {
		t.Helper()
		got := map[string]int{}
		for _, c := range conns {
			read(t, c, func(frame []byte) { got[string(frame)]++ })
			must(t, c.Close())
		}
		return got
	}
}

func (s sent) compare(t *testing.T, way way, guarded bool, got map[string]int) {
	t.Helper()
	for frame, c := range s {
		want := 1
		if guarded && c.Expect == firewall.Drop {
			want = 0
		}
		if got[frame] != want {
			t.Errorf("%s, guarded %t, %s: arrives %d times, want %d", way.name, guarded, c.Name, got[frame], want)
		}
	}
}

// TestDHCPServerHost: the servers that people run give leases under the policy for their host.
func TestDHCPServerHost(t *testing.T) {
	t.Parallel()
	for _, server := range labtest.DHCPServers {
		t.Run(server.Name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := w.join("eth0", "eth0")
			labtest.Address(t, p, 0, "192.0.2.1/24")
			w.guard(example(t, "dhcp-server.yaml"))
			server.Start(t, p, 0).Says(t, server.Ready)
			client := labtest.DHCPClients[0].Start(t, p, 1, int(labtest.Patience.Seconds()), nil)
			client.Says(t, "configured 192.0.2.1")
			n := w.matched()
			if n["own-answer"] < 2 || n["no-other-dhcp"] > 0 {
				t.Errorf("%d of its messages passed and %d were refused", n["own-answer"], n["no-other-dhcp"])
			}
			// With another router in the policy, what the server says is refused.
			w.guard(strings.ReplaceAll(example(t, "dhcp-server.yaml"), "192.0.2.100..192.0.2.149", "192.0.2.200"))
			again := labtest.DHCPClients[0].Start(t, p, 1, 2, nil)
			if code := again.Ends(t); code != labtest.DHCPClients[0].GaveUp {
				t.Errorf("with another pool the client ends with %d", code)
			}
		})
	}
}
