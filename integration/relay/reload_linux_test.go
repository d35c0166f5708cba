package relay

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
)

// rewrite puts another configuration in the place of the relay's.
func (s *site) rewrite(config, text string) {
	s.t.Helper()
	must(s.t, os.Rename(labtest.Write(s.t, s.dir, "next.yaml", 0o600, text), config))
}

const takenOver = "configuration taken over"

// reload has the relay read its configuration, and waits until it has.
func (s *site) reload(g *labtest.Program, config, text string) {
	s.t.Helper()
	before := strings.Count(g.Output(), takenOver)
	s.rewrite(config, text)
	g.Signal(s.t, unix.SIGHUP)
	s.eventually("the relay reads its configuration again", func() bool { return strings.Count(g.Output(), takenOver) > before })
}

// TestReload: while clients ask, the configuration changes; each of them is answered, no binding is
// lost, and what is wrong changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	s.guard("relay-guard.yaml", unlimited...)
	stub(t, s.up)
	base := s.read(s.config("set: bindings\nbpffs: " + s.host.Root))
	static := func(ips ...string) string {
		text := "static:\n"
		for _, ip := range ips {
			text += fmt.Sprintf("  - {mac: '02:00:00:00:09:09', ip: %s, interface: seg1}\n", ip)
		}
		return text
	}
	first := base + "interfaces: [{names: [seg1]}]\n"
	second := base + "interfaces: [{names: [seg1, seg2], clients: 9000}, {names: [seg1], vlan: 7}]\noption82: {circuit-id: 'at {iface} {vlan}', remote-id: '{client}'}\nhops: 8\n"
	config := s.config()
	s.rewrite(config, first+static("10.1.9.1", "10.1.9.2"))
	g := s.relay(config, "--quiet")
	s.eventually("static bindings are in force", func() bool { return s.has("10.1.9.1") && s.has("10.1.9.2") })

	c, asked := newCrowd(t, s.segments[0]), 0
	ask := func() {
		for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
			c.ask()
			asked++
		}
	}
	for range 10 {
		ask()
		s.reload(g, config, second+static("10.1.9.1"))
		ask()
		s.reload(g, config, first+static("10.1.9.1"))
	}
	s.eventually("all clients have their addresses", func() bool { return len(c.given()) == asked })
	s.missing("in the firewall", s.inForce(), c.given())
	if s.has("10.1.9.2") || !s.has("10.1.9.1") || len(s.bindings()) != asked+1 {
		t.Errorf("of %d bindings and one static one there are %d; the static ones are in force: %t, %t", asked, len(s.bindings()), s.has("10.1.9.1"), s.has("10.1.9.2"))
	}

	s.rewrite(config, second+"hobs: 3\n")
	g.Says(t, "relay.yaml:8:1: error: unknown key \"hobs\"") // the change alone is enough
	g.Says(t, "the one before stays as it is")
	s.rewrite(config, strings.Replace(first, "relay.db\n", "other.db\n", 1))
	g.Says(t, "another database takes a restart")
	s.rewrite(config, base+"interfaces: [{names: ['seg*']}]\noption82: {circuit-id: same}\n")
	s.reload(g, config, second)
	if n := len(s.bindings()); n != asked || s.has("10.1.9.1") {
		t.Errorf("%d bindings, want %d; the static one is in force: %t", n, asked, s.has("10.1.9.1"))
	}
	other := newClient(t, s.segments[1])
	checkBinding(s, other, other.lease())

	// A static binding that was taken out while no relay ran.
	s.reload(g, config, first+static("10.1.9.3"))
	s.eventually("it is in force", func() bool { return s.has("10.1.9.3") })
	g.Kill()
	s.rewrite(config, first)
	s.relay(config, "--quiet")
	s.eventually("it is not any more", func() bool { return !s.has("10.1.9.3") })
	s.missing("in the firewall", s.inForce(), c.given())
}

// TestPolicies: a set that a flush has emptied is filled again, and what is released while a policy without the set is on trial
// is not in force when the one before comes back.
func TestPolicies(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.guard("relay-guard.yaml", unlimited...)
	stub(t, s.up)
	apply := func(text string, trial time.Duration) {
		t.Helper()
		_, err := s.host.Apply(kernel.Source{Name: "p", Text: []byte(text)}, kernel.ApplyOptions{Confirm: trial})
		must(t, err)
	}
	guard := strings.NewReplacer(unlimited...).Replace(labtest.Example(t, "relay-guard.yaml"))
	g := s.relay(s.config(allSegments, "set: bindings\nbpffs: "+s.host.Root), "--quiet")
	c := newCrowd(t, s.segments[0])
	c.ask()
	s.eventually("the client has its address", func() bool { return len(c.given()) == 1 && s.has(c.given()[0]) })
	ip := c.given()[0]
	must(t, s.host.Flush())
	apply(guard, 0)
	if s.has(ip) {
		t.Fatal("the set is not emptied by a flush")
	}
	s.eventually("the set is filled again", func() bool { return s.has(ip) })

	apply("policy: bare\nguard: [{interfaces: [seg1]}]\ndefault: accept\n", time.Minute)
	g.Says(t, "no policy in force has the set") // from then on changes wait
	r, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://relay/bindings/"+ip, nil)
	must(t, err)
	answer, err := s.control().Do(r)
	must(t, err)
	answer.Body.Close()
	s.eventually("the binding is gone", func() bool { return len(s.bindings()) == 0 })
	time.Sleep(11 * time.Second) // the relay looks for what it has to do every 10
	must(t, s.host.Rollback())
	if s.has(ip) {
		t.Error("what was released is in force again")
	}
}

func (s *site) read(file string) string {
	s.t.Helper()
	b, err := os.ReadFile(file)
	must(s.t, err)
	return string(b)
}
