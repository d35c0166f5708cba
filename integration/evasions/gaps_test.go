package evasions

import (
	"testing"

	"github.com/postern-fw/postern/firewall"
)

// TestGaps are forged frames that the policies cannot refuse, because the language
// has no words for what is wrong with them: each passes as what it pretends to be.
// The day one is refused, it belongs into Cases.
func TestGaps(t *testing.T) {
	h := NewHost()
	p := policies(h)
	trailer := udp{srcPort: 5004, dstPort: 5004, payload: []byte{1}}.in(h.IP, h.PeerIP)
	trailer.payload = cat(trailer.payload, asReply(rogue(h).bytes()).in(h.Server, allAddresses).payload)
	trailer.totalLen = 29
	for _, c := range []struct {
		why    string
		policy *Policy
		rule   string
		frame  []byte
		gso    int
	}{
		{"the IP length cannot be compared with the frame's: a trailer is padding, whatever it looks like, as it is for every sound receiver",
			p.dhcpHost, "own-traffic", trailer.link().frame(broadcast, h.MAC), 0},
	} {
		f := enforce(t, c.policy)
		forged := by(c.rule, c.frame)
		forged.GSOSize = c.gso
		check(t, f, c.why, forged, firewall.Accept)
		t.Logf("%s:\n%x", c.why, c.frame)
	}
}
