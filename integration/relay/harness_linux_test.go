package relay

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/relay"
)

// postern is the command, built for these tests.
var postern string

// TestMain lets more tests run at a time than there are processors: the programs wait more than
// they work.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err) // package testing has it
	}
	dir, err := os.MkdirTemp("", "postern-relay-")
	if err == nil {
		postern = filepath.Join(dir, "postern")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", postern, "../../cmd/postern").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	agentEnd  = labtest.Near
	serverEnd = labtest.Far
	clientEnd = labtest.Far
)

// site is an agent (192.0.2.1) with servers' network on one side, 192.0.2.53 in it, and clients'
// segments on the other: segment i is 10.i.0.0/16, and the agent is 10.i.0.1 there.
type site struct {
	t testing.TB
	// up joins the agent (near) and the server (far).
	up       *lab.Pair
	segments []*lab.Pair
	dir      string
	host     kernel.Host
}

func newSite(t testing.TB, segments int) *site {
	t.Helper()
	s := &site{t: t, up: labtest.NewPair(t, "192.0.2.1/24", "192.0.2.53/24"), dir: t.TempDir()}
	labtest.In(t, s.up, agentEnd, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	})
	labtest.In(t, s.up, serverEnd, func() error {
		_, clients, _ := net.ParseCIDR("10.0.0.0/8")
		return netlink.RouteAdd(&netlink.Route{Dst: clients, Gw: net.IPv4(192, 0, 2, 1)})
	})
	for range segments {
		s.segment()
	}
	return s
}

// segment adds a network of clients.
func (s *site) segment() *lab.Pair {
	s.t.Helper()
	i := len(s.segments) + 1
	p := s.wire(fmt.Sprintf("seg%d", i), "eth0")
	s.segments = append(s.segments, p)
	labtest.Address(s.t, p, agentEnd, fmt.Sprintf("10.%d.0.1/16", i))
	return p
}

// wire joins the agent to a new namespace.
func (s *site) wire(near, far string) *lab.Pair {
	s.t.Helper()
	ns := newNamespace(s.t)
	p := &lab.Pair{NS: [2]netns.NsHandle{s.up.NS[agentEnd], ns}}
	labtest.In(s.t, p, agentEnd, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = near
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: far, PeerNamespace: netlink.NsFd(ns)})
	})
	for i, name := range []string{near, far} {
		labtest.In(s.t, p, i, func() (err error) {
			if lo, err := netlink.LinkByName("lo"); err != nil || netlink.LinkSetUp(lo) != nil {
				return fmt.Errorf("lo is not up: %w", err)
			}
			link, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetUp(link)
			}
			if err == nil {
				p.Ifi[i], err = net.InterfaceByName(name)
			}
			return err
		})
	}
	s.eventually(near+" is up", func() bool {
		up := false
		labtest.In(s.t, p, agentEnd, func() error {
			link, err := netlink.LinkByName(near)
			up = err == nil && link.Attrs().OperState == netlink.OperUp
			return err
		})
		return up
	})
	return p
}

func newNamespace(t testing.TB) (ns netns.NsHandle) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var err error
		ns, err = netns.New()
		done <- err
	}()
	must(t, <-done)
	t.Cleanup(func() { ns.Close() })
	return ns
}

// eventually waits for what another process does.
func (s *site) eventually(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(labtest.Patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("never happened: %s", what)
		}
	}
}

// config is a relay.yaml that serves all segments, with more lines at its end.
func (s *site) config(more ...string) string {
	return labtest.Write(s.t, s.dir, "relay.yaml", 0o600, "database: "+s.dir+"/relay.db\nservers: [192.0.2.53]\n"+
		strings.Join(more, "\n")+"\n")
}

const allSegments = "interfaces: [{names: [\"seg*\"]}]"

// relay starts the agent.
func (s *site) relay(config string, args ...string) *labtest.Program {
	s.t.Helper()
	g := labtest.Start(s.t, s.up, agentEnd, nil, postern, append([]string{"relay", "--config", config}, args...)...)
	g.Says(s.t, "msg=ready")
	s.t.Cleanup(func() {
		if s.t.Failed() && !g.Ended() {
			var list []relay.Count
			_ = s.ask("/counters").Decode(&list)
			s.t.Logf("counters: %+v", list)
		}
	})
	return g
}

// control is a client of the control socket.
func (s *site) control() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", s.dir+"/relay.db.sock")
	}}}
}

// ask does a request on the control socket.
func (s *site) ask(path string) *json.Decoder {
	s.t.Helper()
	r, err := s.control().Get("http://relay" + path)
	must(s.t, err)
	s.t.Cleanup(func() { r.Body.Close() })
	return json.NewDecoder(r.Body)
}

// bindings are those that the agent has, by address.
func (s *site) bindings() map[string]relay.Item {
	s.t.Helper()
	out := map[string]relay.Item{}
	for d := s.ask("/bindings"); d.More(); {
		var i relay.Item
		must(s.t, d.Decode(&i))
		out[i.IP.String()] = i
	}
	return out
}

// count adds up counters: of messages relayed of a type, or dropped for a reason.
func (s *site) count(at, typeOrReason string) (n uint64) {
	s.t.Helper()
	var list []relay.Count
	must(s.t, s.ask("/counters").Decode(&list))
	for _, c := range list {
		if (c.Interface == at || c.Server == at) && (c.Type == typeOrReason || c.Reason == typeOrReason) {
			n += c.N
		}
	}
	return n
}
