package relay

import (
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestInterfacesComeAndGo: an interface that comes later, and gets its address later still, is
// served; when it is gone the others go on, and when it comes again it is served again.
func TestInterfacesComeAndGo(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	servers[2].start(t, s.up, 2, 600).Says(t, servers[2].ready)
	g := s.relay(s.config(allSegments))
	for range 2 {
		p := s.wire("seg2", "eth0")
		c := newClient(t, p)
		labtest.Address(t, p, agentEnd, "10.2.0.1/16")
		s.eventually("the new interface is served", func() bool {
			m := c.message(1)
			c.broadcast(m)
			return c.answer(m, 50e6) != nil
		})
		checkBinding(s, c, c.lease())
		labtest.In(t, p, agentEnd, func() error { return netlink.LinkDel(mustLink("seg2")) })
	}
	first := newClient(t, s.segments[0])
	checkBinding(s, first, first.lease())
	if g.Ended() {
		t.Error("the relay has ended")
	}
}
