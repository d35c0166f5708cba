package rows

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestOwnTests: the frames of each example's own tests, sent by the device that it guards. Those that
// it refuses do not arrive, the others do, once. What is judged on its way in is
// TestSpoofingContainer's, and TestReturnTraffic's.
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
			r := receive(t, p)
			// AF_XDP passes no egress hook. Through the gate, a ring with bypass sends again and
			// again what it hears was not taken.
			for _, way := range ways[:3] {
				must(t, w.Flush())
				sendTests(t, p, r, way, policy, false)
				w.guard(text)
				sendTests(t, p, r, way, policy, true)
			}
		})
	}
}

// sendTests sends the frames of a policy's tests and looks at what arrives.
func sendTests(t *testing.T, p *lab.Pair, r *lab.Receiver, way way, policy *firewall.Policy, guarded bool) {
	t.Helper()
	var frames [][]byte
	names, want, got := map[string]string{}, map[string]int{}, map[string]int{}
	for _, c := range policy.Tests {
		frames = append(frames, c.Frame)
		key := string(c.Frame)
		names[key] = c.Name
		if !guarded || c.Expect == firewall.Accept {
			want[key]++
		}
	}
	way.by(t, p, 0, frames...)
	must(t, r.Drain(got))
	for key, name := range names {
		if got[key] != want[key] {
			t.Errorf("%s, guarded %t, %s: arrives %d times, want %d", way.name, guarded, name, got[key], want[key])
		}
	}
}

// TestDHCPServerHost: the servers that people run give leases under the policy for their host.
func TestDHCPServerHost(t *testing.T) {
	for _, server := range labtest.DHCPServers {
		t.Run(server.Name, func(t *testing.T) {
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
