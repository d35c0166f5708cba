package rows

import (
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// loadBalancer is a node with a client and a backend in namespaces of their own. All of them
// have the virtual address but the client.
type loadBalancer struct {
	*world
	client, backend *lab.Pair
}

const service = "192.0.2.80:80"

func newLoadBalancer(t testing.TB) *loadBalancer {
	w := newWorld(t)
	b := &loadBalancer{w, w.join("client0", "eth0"), w.join("backend0", "eth0")}
	for _, c := range []struct {
		p            *lab.Pair
		mac          byte
		node, itself string
	}{
		{b.client, 0xc1, "198.51.100.1/24", "198.51.100.2/24"},
		{b.backend, 0xb1, "10.0.0.1/24", "10.0.0.2/24"},
	} {
		must(t, c.p.SetHardwareAddr(1, net.HardwareAddr{2, 0, 0, 0, 0, c.mac}))
		labtest.Address(t, c.p, 0, c.node)
		labtest.Address(t, c.p, 1, c.itself)
		gateway, _, err := net.ParseCIDR(c.node)
		must(t, err)
		must(t, c.p.Do(1, func() error { return netlink.RouteAdd(&netlink.Route{Gw: gateway}) }))
	}
	for _, at := range []struct {
		p *lab.Pair
		i int
	}{{w.Pair, 0}, {b.backend, 1}} {
		must(t, at.p.Do(at.i, func() error { return onLoopback("192.0.2.80/32") }))
	}
	must(t, w.Do(0, func() error { return sysctl("net.ipv4.ip_forward", "1") }))
	// Only the load balancer says where the virtual address is.
	must(t, b.backend.Do(1, func() error { return sysctl("net.ipv4.conf.all.arp_announce", "2") }))
	return b
}

func onLoopback(cidr string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, addr))
}

// serve has the backend answer at the virtual address with its name, and counts the connections.
func (b *loadBalancer) serve() {
	b.t.Helper()
	must(b.t, b.backend.Do(1, func() error {
		l, err := net.Listen("tcp4", service)
		if err != nil {
			return err
		}
		b.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return // closed at the end of the test
				}
				_, _ = io.WriteString(c, "backend") // the client says if it did not come
				c.Close()
			}
		}()
		return nil
	}))
}

// ask is what the client gets from the service.
func (b *loadBalancer) ask() (answer string, err error) {
	err = b.client.Do(1, func() error {
		c, err := net.DialTimeout("tcp4", service, time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		got, err := io.ReadAll(c)
		answer = string(got)
		return err
	})
	return answer, err
}

// TestDirectServerReturn: the client gets the backend's answer, which the node itself would
// refuse to route.
func TestDirectServerReturn(t *testing.T) {
	b := newLoadBalancer(t)
	b.serve()
	if answer, err := b.ask(); err == nil {
		t.Fatalf("without a policy the client gets the answer %q", answer)
	}
	policy := example(t, "direct-server-return.yaml")
	b.guard(strings.ReplaceAll(policy, "{forward: client0}", "accept"))
	if answer, err := b.ask(); err == nil {
		t.Fatalf("the node routes the answer %q", answer)
	}
	if n := b.matched()["return"]; n == 0 {
		t.Fatal("the backend was not asked")
	}
	b.guard(policy)
	if answer, err := b.ask(); err != nil || answer != "backend" {
		t.Errorf("the client gets %q, %v", answer, err)
	}
}

// TestReturnTraffic: what the backend sends in the service's name comes to the client under the
// client's hardware address, what is forged does not come at all.
func TestReturnTraffic(t *testing.T) {
	b := newLoadBalancer(t)
	backend, client := b.backend.Ifi[1].HardwareAddr, b.client.Ifi[1].HardwareAddr
	node := b.backend.Ifi[0].HardwareAddr
	vip, own := net.IPv4(192, 0, 2, 80), net.IPv4(198, 51, 100, 2)
	stranger, client0 := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, b.client.Ifi[0].HardwareAddr
	honest := udpFrame(node, backend, vip, own, 0)
	tooLong := udpFrame(node, backend, vip, own, 1)
	tooLong[16], tooLong[17] = 5, 220
	forged := [][]byte{
		tooLong,
		udpFrame(node, stranger, vip, own, 2),
		udpFrame(node, backend, net.IPv4(10, 0, 0, 3), own, 3),
		udpFrame(node, backend, vip, net.IPv4(198, 51, 100, 3), 4), // not for the client
		tagged(udpFrame(node, backend, vip, own, 5), 0),
		inSNAP(udpFrame(node, backend, vip, own, 6)),
	}
	byClient := [][]byte{udpFrame(client0, client, vip, own, 7), udpFrame(client0, backend, vip, own, 8)}
	r := receive(t, b.client)
	for _, c := range []struct {
		policy string
		want   []byte
	}{{sentOn, []byte{0, 1, 2, 3, 4, 5, 6, 7, 8}}, {example(t, "direct-server-return.yaml"), []byte{0}}} {
		b.guard(c.policy)
		for _, way := range ways {
			way.by(t, b.backend, 1, append(slices.Clone(forged), honest)...)
			way.by(t, b.client, 1, byClient...)
			frames, want := map[string]int{}, map[byte]int{}
			must(t, r.Drain(frames))
			for _, n := range c.want {
				want[n] = 1
			}
			if got := numbered(frames); !maps.Equal(got, want) {
				t.Errorf("%s: of honest 0 and forged 1 to 8, %v arrive, want %v, each once", way.name, got, c.want)
			}
			if frames[string(readdressed(honest, client))] != 1 {
				t.Errorf("%s: the answer does not arrive under the client's hardware address", way.name)
			}
		}
	}
}

// sentOn is what direct server return would be without a filter.
const sentOn = `policy: sent-on
guard: [{interfaces: [backend0, client0], direction: ingress}]
rules:
  - {name: address, verdict: {set: {eth.dst: "02:00:00:00:00:c1"}}}
  - {name: away, verdict: {forward: client0}}
malformed: match
`

// readdressed is a frame for somebody else.
func readdressed(frame []byte, to net.HardwareAddr) []byte {
	return append(slices.Clone(to), frame[6:]...)
}
