package matrix

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/evasions"
)

// TestKernelsOwn: a policy for packet sockets that accepts no ARP leaves the kernel's
// own alone, or the host would lose its network.
func TestKernelsOwn(t *testing.T) {
	p, g := world(t)
	r := receive(t, p)
	h := evasions.NewHost()
	copy(h.MAC[:], p.Ifi[0].HardwareAddr)
	for _, policy := range evasions.Policies(h) {
		if policy.Name == "dhcp-host" {
			guard(t, p, g, policy)
		}
	}
	must(t, p.Do(0, func() error {
		own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 1), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: p.Ifi[0].Index}}, own); err != nil {
			return err
		}
		c, err := net.Dial("udp4", "198.18.0.2:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	}))
	counts := map[string]int{}
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		r.drain(counts)
		for b := range counts {
			if len(b) >= 42 && b[12:14] == "\x08\x06" && b[28:32] == "\xc6\x12\x00\x01" {
				return
			}
		}
	}
	t.Error("the kernel's ARP request did not arrive")
}
