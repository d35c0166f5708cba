package cluster

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestForget: what an agent that was killed left on an interface goes where the configuration has it no longer; nothing else does.
func TestForget(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root for network namespaces")
	}
	pair, err := lab.New()
	must(t, err)
	t.Cleanup(pair.Close)
	must(t, pair.Do(0, func() error {
		near, err := netlink.LinkByName("near")
		must(t, err)
		other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "other"}, PeerName: "peer"}
		must(t, netlink.LinkAdd(other))
		addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }
		byHand := func(last byte, bits int) {
			t.Helper()
			must(t, netlink.AddrAdd(near, &netlink.Addr{IPNet: &net.IPNet{IP: addr(last).AsSlice(), Mask: net.CIDRMask(bits, 32)}}))
		}
		has := func(link netlink.Link) (list []string) {
			t.Helper()
			found, err := netlink.AddrList(link, netlink.FAMILY_V4)
			must(t, err)
			for _, a := range found {
				list = append(list, a.IPNet.String())
			}
			slices.Sort(list)
			return list
		}
		byHand(1, 24)
		byHand(2, 32)
		byHand(13, 32) // the agent finds it there
		before := Interfaces{addr(10): "near", addr(11): "near", addr(12): "other", addr(13): "near"}
		for a := range before {
			must(t, before.Add(a))
		}
		before = Interfaces{addr(11): "near", addr(12): "near", addr(13): "near"}
		must(t, before.Forget())
		if got, want := has(near), []string{"192.0.2.1/24", "192.0.2.11/32", "192.0.2.13/32", "192.0.2.2/32"}; !slices.Equal(got, want) {
			t.Errorf("near has %v, want %v", got, want)
		}
		if got := has(other); got != nil {
			t.Errorf("an address that has moved is still on its former interface: %v", got)
		}
		must(t, Interfaces(nil).Forget())
		if got, want := has(near), []string{"192.0.2.1/24", "192.0.2.2/32"}; !slices.Equal(got, want) {
			t.Errorf("near has %v, want %v", got, want)
		}
		return nil
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
