package evasions

import (
	"fmt"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/frame"
)

// lengths: the message ends where every header says it does, and what is behind
// is padding, whatever it looks like.
func lengths(h Host, p roles) []Case {
	r := row{table: TableEncapsulation, name: "UDP and IP lengths", policy: p.dhcpHost}
	small := udp{srcPort: 5004, dstPort: 5004, payload: []byte{1}}.in(h.IP, h.PeerIP).link()
	honest := by("own-traffic", small.frame(h.PeerMAC, h.MAC)) // 29 bytes and Ethernet padding
	add := func(name string, f func([]byte) Frame, ip ipv4) {
		r.add(name, f(ip.link().frame(broadcast, h.MAC)), honest)
	}
	because := func(c filter.Cause) func([]byte) Frame { return func(b []byte) Frame { return malformed(c, b) } }
	rule := func(name string) func([]byte) Frame { return func(b []byte) Frame { return by(name, b) } }

	b := rogue(h).bytes()
	claim := func(n int) ipv4 {
		u := asReply(b)
		u.length = n
		return u.in(h.Server, allAddresses)
	}
	for _, n := range []int{-1, 1, 7, 8 + len(b) + 1, 8 + len(b) + 8, 65535} {
		add(fmt.Sprintf("UDP length %d for %d", max(0, n), 8+len(b)), because(udpLen), claim(n))
	}
	add("UDP ends before the message", because(dhcpShort), claim(8))
	add("UDP ends in the fixed part", because(dhcpShort), claim(8+235))
	add("UDP ends before the cookie", rule("no-bootreply"), claim(8+236))
	add("UDP ends behind the cookie", because(pastEnd), claim(8+240))
	add("UDP ends in the options", because(pastEnd), claim(8+245))

	// As a request without its cookie, the message is BOOTP's; the trailer makes it
	// an OFFER for who reads the whole frame.
	disguised := rogue(h)
	disguised.op = bootRequest
	u := asRequest(disguised.bytes())
	u.length = 8 + 236
	add("UDP ends before a request's cookie", rule("no-bootp"), u.in(h.Server, allAddresses))
	cut := u.in(h.Server, allAddresses)
	cut.totalLen = 20 + 8 + 236
	add("IP and UDP end before a request's cookie", rule("no-bootp"), cut)

	shorter := rogueIP(h)
	for _, c := range []struct {
		total int
		cause frame.Cause
	}{
		{19, frame.CauseIPv4TotalLen}, {20, frame.CauseShortUDP}, {24, frame.CauseShortUDP}, {28, frame.CauseUDPLen},
		{20 + 8 + 236, frame.CauseUDPLen}, {20 + 8 + len(b) - 1, frame.CauseUDPLen}, {20 + 8 + len(b) + 1, frame.CauseIPv4TotalLen},
	} {
		shorter.totalLen = c.total
		add(fmt.Sprintf("IP length %d for %d", c.total, 28+len(b)), because(filter.FrameCause(c.cause)), shorter)
	}
	return r.cases
}

// checksums: some receivers look at none, DHCP clients on packet sockets among
// them, and the device may be the one that puts them right.
func checksums(h Host, p roles) []Case {
	r := row{table: TableEncapsulation, name: "checksums", policy: p.dhcpHost}
	u := asRequest(newRequest(h.MAC, discover, clientID(h.MAC)).bytes())
	u.sum = sumNone
	honest := by("own-dhcp", u.toAll(h.MAC))
	for _, c := range []struct {
		name    string
		ip, udp checksum
	}{
		{"right", sumRight, sumRight}, {"wrong in IP", sumWrong, sumRight}, {"wrong in UDP", sumRight, sumWrong}, {"wrong in both", sumWrong, sumWrong},
		{"0 in IP", sumNone, sumRight}, {"0 in UDP", sumRight, sumNone}, {"0 in both", sumNone, sumNone},
	} {
		u := asReply(rogue(h).bytes())
		u.sum = c.udp
		ip := u.in(h.Server, allAddresses)
		ip.sum = c.ip
		r.add(c.name, by("no-server-message", ip.link().frame(broadcast, h.MAC)), honest)
	}
	return r.cases
}
