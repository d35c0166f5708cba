//go:build linux

package labtest

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab"
)

// Near and Far are the ends of a pair: whose way out is guarded, and who is at its other end.
const (
	Near = 0
	Far  = 1
)

// Cannot skips on a laptop and fails in CI.
func Cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// NewPair makes two namespaces whose ends of the wire have these addresses; ""
// for none.
func NewPair(t testing.TB, nearCIDR, farCIDR string) *lab.Pair {
	t.Helper()
	if os.Geteuid() != 0 {
		Cannot(t, "needs root for network namespaces")
	}
	p, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	for i, cidr := range []string{nearCIDR, farCIDR} {
		if cidr != "" {
			Address(t, p, i, cidr)
		}
	}
	return p
}

// Address gives an address to end i.
func Address(t testing.TB, p *lab.Pair, i int, cidr string) {
	t.Helper()
	In(t, p, i, func() error {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(p.Ifi[i].Name)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, addr)
	})
}

// In runs fn in namespace i.
func In(t testing.TB, p *lab.Pair, i int, fn func() error) {
	t.Helper()
	if err := p.Do(i, fn); err != nil {
		t.Fatal(err)
	}
}

// Example is a policy that the project hands out, for a package two directories down.
func Example(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../examples/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// AskFor makes the far kernel look for ip, so that it believes whoever answers.
func AskFor(t testing.TB, p *lab.Pair, ip netip.Addr) {
	t.Helper()
	In(t, p, Far, func() error {
		c, err := net.Dial("udp4", netip.AddrPortFrom(ip, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("anybody?"))
		return err
	})
}

// Cached is what the kernel of end i holds to be the hardware address of ip, nil if it
// knows none.
func Cached(t testing.TB, p *lab.Pair, i int, ip netip.Addr) (mac net.HardwareAddr) {
	t.Helper()
	In(t, p, i, func() error {
		neighbours, err := netlink.NeighList(p.Ifi[i].Index, netlink.FAMILY_V4)
		for _, n := range neighbours {
			if n.IP.Equal(ip.AsSlice()) {
				mac = n.HardwareAddr
			}
		}
		return err
	})
	return mac
}
