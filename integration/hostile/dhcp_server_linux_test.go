package hostile

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestDHCPServers: each server, on a machine whose policy lets it serve, is understood by
// each client, on one whose policy lets it ask.
func TestDHCPServers(t *testing.T) {
	t.Parallel()
	for _, server := range labtest.DHCPServers {
		for _, client := range labtest.DHCPClients {
			t.Run(server.Name+" and "+client.Name, func(t *testing.T) {
				t.Parallel()
				p := labtest.NewPair(t, "192.0.2.1/24", "")
				near := guard(t, p, labtest.Near, testdata(t, "dhcp-server.yaml"))
				far := guard(t, p, labtest.Far, strings.Replace(example(t, "dhcp-host.yaml", `["eth*", "en*"]`, "packet-sockets"), "[near]", "[far]", 1))
				server.Start(t, p, labtest.Near).Says(t, server.Ready)
				client.Start(t, p, labtest.Far, int(labtest.Patience.Seconds()), nil).Says(t, "configured 192.0.2.1")
				if offered, asked := near.decided(t, "own-answers"), far.decided(t, "own-lease"); offered < 2 || asked < 2 {
					t.Errorf("the guards saw %d answers and %d of the client's messages", offered, asked)
				}
			})
		}
	}
}

// TestRogueServers: where the policy says that a machine is no DHCP server, nobody hears
// what a server on it answers, be it by packet sockets or by UDP.
func TestRogueServers(t *testing.T) {
	t.Parallel()
	ettercap := labtest.DHCPServer{Name: "ettercap", Start: ettercapDHCP, Ready: "Starting Unified sniffing"}
	for i, server := range append(slices.Clip(labtest.DHCPServers), ettercap) {
		client := labtest.DHCPClients[i%len(labtest.DHCPClients)]
		t.Run(server.Name+" and "+client.Name, func(t *testing.T) {
			t.Parallel()
			p := labtest.NewPair(t, "192.0.2.1/24", "")
			server.Start(t, p, labtest.Near).Says(t, server.Ready)
			client.Start(t, p, labtest.Far, int(labtest.Patience.Seconds()), nil).Says(t, "configured 192.0.2.1")

			p = labtest.NewPair(t, "192.0.2.1/24", "")
			g := guard(t, p, labtest.Near, testdata(t, "dhcp-host.yaml"))
			r, err := p.Receive(labtest.Far)
			must(t, err)
			t.Cleanup(func() { r.Close() })
			server.Start(t, p, labtest.Near).Says(t, server.Ready)
			running := client.Start(t, p, labtest.Far, 2, nil)
			if code := running.Ends(t); code != client.GaveUp {
				t.Errorf("%s: exit %d, want %d", client.Name, code, client.GaveUp)
			}
			if g.decided(t, "no-rogue-server") == 0 {
				t.Errorf("%s has not answered", server.Name)
			}
			arrived := newTally(t, "udp.srcport == 67")
			arrived.read(t, r)
			if n := arrived.count["udp.srcport == 67"]; n != 0 || running.Said("configured") {
				t.Errorf("%d answers got out; %s has a lease: %t", n, client.Name, running.Said("configured"))
			}
		})
	}
}

// ettercapDHCP answers faster than the server of the network would.
func ettercapDHCP(t testing.TB, p *lab.Pair, end int) *labtest.Program {
	t.Helper()
	return labtest.Start(t, p, end, nil, labtest.Tool(t, "ettercap", "ettercap-text-only"),
		"-T", "-q", "-z", "-i", p.Ifi[end].Name, "-M", "dhcp:192.0.2.100-149/255.255.255.0/192.0.2.1")
}
