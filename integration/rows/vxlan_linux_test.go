package rows

import (
	"fmt"
	"maps"
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// inner is where VXLAN's payload begins: behind Ethernet, IPv4, UDP and VXLAN itself.
const inner = 14 + 20 + 8 + 8

// TestVXLAN: a frame on an overlay is judged as itself on the overlay, and once more, by
// its encapsulation, on the underlay; each can refuse it.
func TestVXLAN(t *testing.T) {
	const policy = `policy: vxlan
guard: [{interfaces: [overlay, near], senders: all}]
hook: %s
rules:
  - {name: refused-on-overlay, match: iface.name == overlay && arp.src.proto_ipv4 == 192.0.2.2, verdict: drop}
  - {name: overlay, match: iface.name == overlay && arp && eth.src == iface.mac, verdict: accept}
  # The ARP packet inside has its sender protocol address at 50 + 14 + 14.
  - {name: refused-on-underlay, match: 'iface.name == near && udp.dstport == 4789 && frame[78:4] == c0:00:02:03', verdict: drop}
  - {name: underlay, match: iface.name == near && udp.dstport == 4789 && ip.src == 198.51.100.1 && eth.src == iface.mac, verdict: accept}
`
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			overlay := w.overlay()
			r := receive(t, w.Pair)
			announce(t, overlay, 0, 1, 2, 3)
			if got := tunnelled(t, r); !maps.Equal(got, map[byte]int{1: 1, 2: 1, 3: 1}) {
				t.Fatalf("without a guard %v arrive in the tunnel", got)
			}
			w.guard(fmt.Sprintf(policy, hook))
			announce(t, overlay, 0, 1, 2, 3)
			if got := tunnelled(t, r); !maps.Equal(got, map[byte]int{1: 1}) {
				t.Errorf("%v arrive in the tunnel, want 1", got)
			}
			got := w.matched()
			for rule, want := range map[string]int{"refused-on-overlay": 1, "overlay": 2, "refused-on-underlay": 1, "underlay": 1} {
				if got[rule] != want {
					t.Errorf("rule %s matched %d frames, want %d", rule, got[rule], want)
				}
			}
		})
	}
}

// overlay adds a VXLAN device over near, whose other end is far.
func (w *world) overlay() *lab.Pair {
	w.t.Helper()
	labtest.Address(w.t, w.Pair, 0, "198.51.100.1/24")
	labtest.Address(w.t, w.Pair, 1, "198.51.100.2/24")
	p := &lab.Pair{NS: w.NS, Ifi: w.Ifi}
	must(w.t, w.Do(0, func() error {
		// Nobody has to be asked where the other end is.
		err := netlink.NeighAdd(&netlink.Neigh{LinkIndex: w.Ifi[0].Index, State: unix.NUD_PERMANENT, IP: net.IPv4(198, 51, 100, 2), HardwareAddr: w.Ifi[1].HardwareAddr})
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "overlay"
		link := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 42, VtepDevIndex: w.Ifi[0].Index, Group: net.IPv4(198, 51, 100, 2), Port: 4789}
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		p.Ifi[0], err = net.InterfaceByName("overlay")
		return err
	}))
	return p
}

// tunnelled is which addresses were announced inside of VXLAN.
func tunnelled(t testing.TB, r *lab.Receiver) map[byte]int {
	t.Helper()
	frames, counts := map[string]int{}, map[byte]int{}
	must(t, r.Drain(frames))
	for f, n := range frames {
		if len(f) < inner || f[12:14] != "\x08\x00" || f[36:38] != "\x12\xb5" { // UDP port 4789
			continue
		}
		if x, ok := announced([]byte(f[inner:])); ok {
			counts[x] += n
		}
	}
	return counts
}
