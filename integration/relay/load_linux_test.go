package relay

import (
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// load is perfdhcp's four-way exchanges, a rate of them for some seconds, by broadcast from the far
// end. It reports how many a second were completed, and how many were not.
func load(t testing.TB, p *lab.Pair, rate, seconds int) (done float64, lost int) {
	t.Helper()
	dir := t.TempDir()
	// Its socket is bound to an address, so that it hears no broadcast.
	rules := labtest.Write(t, dir, "rules", 0o600, `table netdev perfdhcp {
chain in {
  type filter hook ingress device eth0 priority 0;
  udp dport 68 ip daddr set 10.1.0.2 meta pkttype set host
}
}
`)
	if g := labtest.Start(t, p, clientEnd, nil, labtest.Tool(t, "nft", "nftables"), "-f", rules); g.Ends(t) != 0 {
		t.Fatal(g.Output())
	}
	// Without templates it plays a relay agent itself.
	discover := template(t, dir, "discover", dhcpv4.MessageTypeDiscover)
	request := template(t, dir, "request", dhcpv4.MessageTypeRequest)
	g := labtest.Start(t, p, clientEnd, nil, labtest.Tool(t, "perfdhcp", "kea-admin"),
		"-4", "-B", "-L", "68", "-l", "eth0", "-T", discover, "-T", request, "-S", "243", "-I", "249", "-O", "33",
		"-r", strconv.Itoa(rate), "-R", "60000", "-p", strconv.Itoa(seconds), "-d", "2", "-W", "1000000", "255.255.255.255")
	g.Ends(t)
	for line := range strings.Lines(g.Output()) {
		var n int
		if _, err := fmt.Sscanf(line, "Rate: %f 4-way", &done); err == nil {
			continue
		}
		if _, err := fmt.Sscanf(line, "drops: %d", &n); err == nil {
			lost += n
		}
	}
	if done == 0 {
		t.Fatalf("perfdhcp: %s", g.Output())
	}
	return done, lost
}

// template is a message whose server identifier is at 243 and requested address at 249.
func template(t testing.TB, dir, name string, typ dhcpv4.MessageType) string {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 0}), dhcpv4.WithBroadcast(true))
	must(t, err)
	b := m.ToBytes()[:240]
	b = append(b, 53, 1, byte(typ))
	if typ == dhcpv4.MessageTypeRequest {
		b = append(b, 54, 4, 0, 0, 0, 0, 50, 4, 0, 0, 0, 0)
	}
	b = append(b, 255)
	b = append(b, make([]byte, 300-len(b))...)
	return labtest.Write(t, dir, name, 0o600, hex.EncodeToString(b))
}

// agents are ours and ISC's.
var agents = []struct {
	name  string
	start func(s *site) *labtest.Program
}{
	{"postern relay", func(s *site) *labtest.Program {
		return s.relay(s.config(`interfaces: [{names: ["seg*"], trusted: true}]`), "--quiet")
	}},
	{"ISC dhcrelay", func(s *site) *labtest.Program {
		g := labtest.Start(s.t, s.up, agentEnd, nil, labtest.Tool(s.t, "dhcrelay", "isc-dhcp-relay"),
			"-4", "-d", "-a", "--no-pid", "-id", "seg1", "-iu", "near", "192.0.2.53")
		g.Says(s.t, "Sending on")
		return g
	}},
}

// TestLoad: below saturation the agent loses nothing: each message that came in went out, and
// each answer. What perfdhcp's own socket has no room for is its own affair.
func TestLoad(t *testing.T) {
	s := newSite(t, 1)
	labtest.Address(t, s.segments[0], clientEnd, "10.1.0.2/16")
	stub(t, s.up)
	agents[0].start(s)
	load(t, s.segments[0], 1000, 2)
	discovers, requests := s.count("seg1", "discover"), s.count("seg1", "request")
	if discovers < 1500 || requests < 1500 {
		t.Errorf("%d DISCOVERs, %d REQUESTs", discovers, requests)
	}
	s.eventually("all answers are relayed", func() bool {
		return s.count("192.0.2.53", "offer") == discovers && s.count("192.0.2.53", "ack") == requests
	})
	if n := len(s.bindings()); n < 1500 {
		t.Errorf("%d bindings", n)
	}
}

// BenchmarkLoad finds out how many four-way exchanges a second each agent brings about: with Kea
// as the server, and with one that is no bottleneck.
func BenchmarkLoad(b *testing.B) {
	for _, server := range []string{"Kea", "stub"} {
		for _, rate := range []int{1000, 2000, 4000, 8000, 16000, 24000} {
			for _, agent := range agents {
				b.Run(fmt.Sprintf("%s/%d/%s", server, rate, agent.name), func(b *testing.B) {
					s := newSite(b, 1)
					labtest.Address(b, s.segments[0], clientEnd, "10.1.0.2/16")
					if server == "stub" {
						stub(b, s.up)
					} else {
						servers[1].serve(s, 600)
					}
					g := agent.start(s)
					for b.Loop() {
						before := g.CPU(b)
						done, lost := load(b, s.segments[0], rate, 3)
						b.ReportMetric(done, "exchanges/s")
						b.ReportMetric(float64(lost), "lost")
						// perfdhcp counts the second for which it waits for the last answers.
						b.ReportMetric(float64((g.CPU(b)-before).Microseconds())/(done*4), "CPU-µs/exchange")
					}
				})
			}
		}
	}
}
