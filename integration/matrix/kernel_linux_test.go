package matrix

import (
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestKernelsOwn: a policy for packet sockets that accepts no ARP leaves the kernel's
// own alone, or the host would lose its network.
func TestKernelsOwn(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	for _, role := range w.roles {
		if role.policy.Name == "dhcp-host" {
			w.guard(t, role.policy, how{})
		}
	}
	must(t, w.Do(0, func() error {
		own := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 1), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: w.near.index}}, own); err != nil {
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
	seen := false
	for deadline := time.Now().Add(10 * time.Second); !seen && time.Now().Before(deadline); {
		must(t, r.settle(func(b []byte) {
			seen = seen || len(b) >= 42 && string(b[12:14]) == "\x08\x06" && string(b[28:32]) == "\xc6\x12\x00\x01"
		}))
	}
	if !seen {
		t.Error("the kernel's ARP request did not arrive")
	}
}
