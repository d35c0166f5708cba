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
	own, server := address(optRequested, h.IP), address(optServerID, h.Server)
	circuit := circuit(h)
	evil := option(5, 198, 51, 100, 0)
	trailer := udp{srcPort: 5004, dstPort: 5004, payload: []byte{1}}.in(h.IP, h.PeerIP)
	trailer.payload = cat(trailer.payload, asReply(rogue(h).bytes()).in(h.Server, allAddresses).payload)
	trailer.totalLen = 29
	first := newRequest(h.MAC, request, server).bytes()
	pxe := udp{srcPort: 4011, dstPort: 4011, payload: cat(first, rogue(h).bytes())}
	for _, c := range []struct {
		why    string
		policy *Policy
		rule   string
		frame  []byte
		gso    int
	}{
		{"an address is in a live set if any of the option's occurrences is: nothing says that all are, or that there is one",
			p.dhcpHost, "own-dhcp",
			asRequest(newRequest(h.MAC, decline, own, address(optRequested, h.PeerIP), server).bytes()).toAll(h.MAC), 0},
		{"a second client identifier that is neither a hardware address of 7 bytes, text, nor a DUID is no field's occurrence",
			p.dhcpHost, "own-dhcp",
			asRequest(newRequest(h.MAC, discover, clientID(h.MAC), option(optClientID, make([]byte, 17)...)).bytes()).toAll(h.MAC), 0},
		{"a link selection that RFC 3396 splits over two options 82 is seen in neither",
			p.relay, "relayed",
			relayed(h, relayedDiscover(h, circuit, option(optAgent, evil[:4]...), option(optAgent, evil[4:]...))), 0},
		{"the IP length cannot be compared with the frame's: a trailer is padding, whatever it looks like, as it is for every sound receiver",
			p.dhcpHost, "own-traffic", trailer.link().frame(broadcast, h.MAC), 0},
		{"a super-frame on PXE's port 4011 is not malformed, though its first message is read and its second is not",
			p.dhcpHost, "own-traffic", pxe.in(h.IP, h.PeerIP).link().frame(h.PeerMAC, h.MAC), len(first)},
	} {
		f := enforce(t, c.policy)
		forged := by(c.rule, c.frame)
		forged.GSOSize = c.gso
		check(t, f, c.why, forged, firewall.Accept)
		t.Logf("%s:\n%x", c.why, c.frame)
	}
}
