package kernel

import (
	"maps"
	"net"
	"strings"
	"testing"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// second adds a veth pair, aside in the near namespace and away in the far one.
func (w *world) second() {
	w.t.Helper()
	must(w.t, w.Do(0, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "aside"
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "away", PeerNamespace: netlink.NsFd(w.NS[1])}); err != nil {
			return err
		}
		l, err := netlink.LinkByName("aside")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}))
	must(w.t, w.Do(1, func() error {
		l, err := netlink.LinkByName("away")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}))
}

const fwdPolicy = `policy: forward
guard:
  - {interfaces: [near], hook: NEAR}
  - {interfaces: [aside], hook: ASIDE}
rules:
  - {name: there, match: 'iface.name == "aside" && arp.src.proto_ipv4 in {192.0.2.1, 192.0.2.3}', verdict: accept}
  - {name: refused there, match: 'iface.name == "aside" && arp.src.proto_ipv4 == 192.0.2.2', verdict: drop}
  - {name: round, match: 'iface.name == "aside" && arp.src.proto_ipv4 == 192.0.2.5', verdict: {forward: near}}
  - {name: copy, match: arp.src.proto_ipv4 == 192.0.2.3, verdict: {duplicate: aside}}
  - {name: stay, match: 'arp.src.proto_ipv4 in {192.0.2.3, 192.0.2.4}', verdict: accept}
  - {name: on, match: arp, verdict: {forward: aside}}
`

// TestForward: what a rule sends to another interface is judged again there, as a frame of that
// interface, by the gate and by tc alike.
func TestForward(t *testing.T) {
	for _, c := range []struct{ near, aside string }{{"gate", "gate"}, {"gate", "tc"}, {"tc", "gate"}, {"tc", "tc"}} {
		t.Run(c.near+" to "+c.aside, func(t *testing.T) {
			w := newWorld(t)
			w.second()
			s := w.apply(strings.NewReplacer("NEAR", c.near, "ASIDE", c.aside).Replace(fwdPolicy))
			for _, i := range s.Interfaces {
				if !i.Guarded {
					t.Errorf("%+v", i)
				}
			}
			var away *packet.Conn
			must(t, w.Do(1, func() error {
				ifi, err := net.InterfaceByName("away")
				if err == nil {
					away, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
				}
				return err
			}))
			defer away.Close()
			if got, want := w.announce(false, 1, 2, 3, 4, 5), map[byte]int{3: 1, 4: 1}; !maps.Equal(got, want) {
				t.Errorf("at far: %v, want %v", got, want)
			}
			if got, want := w.arrivals(away), map[byte]int{1: 1, 3: 1}; !maps.Equal(got, want) {
				t.Errorf("at away: %v, want %v", got, want)
			}
			// The one that goes round is refused after three interfaces.
			rules, err := w.Rules()
			must(t, err)
			counts := map[string]uint64{}
			for _, r := range rules {
				counts[r.Name] = r.Frames
			}
			want := map[string]uint64{"there": 2, "refused there": 1, "round": 2, "copy": 1, "stay": 2, "on": 4, "default": 1, "malformed": 0}
			if !maps.Equal(counts, want) {
				t.Errorf("counters %v, want %v", counts, want)
			}
		})
	}
}
