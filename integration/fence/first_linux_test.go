package fence

import (
	"net/netip"
	"testing"
	"time"

	"github.com/postern-fw/postern/cluster"
)

// TestKill9: one address, and its holder is killed.
func TestKill9(t *testing.T) {
	o := options(t)
	o.Config = quick("10.8.1.1")
	s := newSite(t, o)
	for _, n := range s.Nodes {
		must(t, n.Start())
	}
	vip := netip.MustParseAddr("10.8.1.1")
	eventually(t, 20*time.Second, "somebody announces", func() bool { return s.speaker(vip, 0) != "" })
	time.Sleep(time.Second)
	old := s.speaker(vip, 0)
	_, said, err := s.node(old).Postern("vips")
	must(t, err)
	t.Log("\n" + said)
	killed := cluster.BootTime()
	s.node(old).Agent.Kill()
	eventually(t, 10*time.Second, "another one announces", func() bool { n := s.speaker(vip, killed); return n != "" && n != old })
	for _, f := range s.Observer.Seen(0) {
		if f.Sender == vip && f.At > killed {
			t.Logf("%v after the kill %s announces", time.Duration(f.At-killed), s.nodeOf(f.Port))
			break
		}
	}
}
