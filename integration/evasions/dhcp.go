package evasions

import (
	"fmt"
	"net/netip"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/dhcp"
)

func dhcpCases(h Host, p roles) (cases []Case) {
	for _, f := range []func(Host, roles) []Case{
		answers, clientAddresses, clientIDs, foreignLeases, relays, relayLimits, serverChoice, superFrames,
	} {
		cases = append(cases, f(h, p)...)
	}
	return cases
}

// fromServer is a message of the host in its role as server, to a client.
func fromServer(h Host, m message) []byte {
	return asReply(m.bytes()).in(h.IP, allAddresses).link().frame(broadcast, h.MAC)
}

// fromGuest is the same message from a guest, who copied it.
func fromGuest(h Host, m message) []byte {
	return asReply(m.bytes()).in(h.IP, allAddresses).link().frame(broadcast, h.Guest)
}

// toServer is a client's message, unicast.
func toServer(h Host, m message) []byte {
	return asRequest(m.bytes()).in(h.IP, h.Server).link().frame(h.PeerMAC, h.MAC)
}

// answers come from a guest of the server, and from a machine that is none.
func answers(h Host, p roles) []Case {
	guest := row{table: TableDHCP, name: "server's answers", policy: p.dhcpServer}
	host := row{table: TableDHCP, name: "server's answers", policy: p.dhcpHost}
	for _, typ := range []byte{offer, ack, nak, forceRenew, leaseUnassigned, leaseUnknown, leaseActive} {
		m := newReply(h.Guest, h.OtherServer, typ, address(optServerID, h.IP))
		honest := m
		if typ == forceRenew { // which the policy knows nothing of
			honest.options = options53(ack, address(optServerID, h.IP))
		}
		for _, op := range []byte{bootReply, bootRequest} {
			m.op = op
			name := fmt.Sprintf("type %d, op %d", typ, op)
			guest.add(name+", of a guest", by("no-server-message", fromGuest(h, m)), by("answer", fromServer(h, honest)))
			host.add(name, by("no-server-message", fromServer(h, m)), honestDiscover(h))
		}
	}
	m := newReply(h.Guest, h.OtherServer, offer, address(optServerID, h.OtherServer))
	guest.add("another's identity", by("no-foreign-identity", fromServer(h, m)),
		by("answer", fromServer(h, newReply(h.Guest, h.OtherServer, offer, address(optServerID, h.IP)))))
	for _, port := range []int{portClient, 1067, 53} { // a client does not look whence it comes
		u := asReply(rogue(h).bytes())
		u.srcPort = port
		host.add(fmt.Sprintf("from port %d", port), by("no-server-message", u.in(h.Server, allAddresses).link().frame(broadcast, h.MAC)), honestDiscover(h))
	}
	bootp := rogue(h)
	bootp.noCookie = true
	guest.add("BOOTP", by("no-bootreply", fromGuest(h, bootp)),
		by("answer", fromServer(h, newReply(h.Guest, h.OtherServer, ack, address(optServerID, h.IP)))))
	host.add("BOOTP", by("no-bootreply", fromServer(h, bootp)), honestDiscover(h))
	return append(guest.cases, host.cases...)
}

// relayedDiscover is a client's DISCOVER as the host relays it.
func relayedDiscover(h Host, options ...[]byte) message {
	m := newRequest(h.Guest, discover, options...)
	m.relay, m.hops = h.IP, 1
	return m
}

// relayed is a message on its way from the host, a relay, to the server.
func relayed(h Host, m message) []byte {
	return between(m.bytes()).in(h.IP, h.Server).link().frame(h.PeerMAC, h.MAC)
}

// circuit is option 82 as the host makes it.
func circuit(h Host) []byte {
	return suboptions(option(1, []byte("veth1")...), option(5, h.Link.Masked().Addr().AsSlice()...))
}

func clientAddresses(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "chaddr", policy: p.relay}
	host := row{table: TableDHCP, name: "chaddr", policy: p.dhcpHost}
	honest := by("relayed", relayed(h, relayedDiscover(h, clientID(h.Guest), circuit(h))))
	broken := func(name, rule string, change func(*message)) {
		m := newRequest(h.MAC, discover)
		change(&m)
		r.add(name, by(rule, asRequest(m.bytes()).toAll(h.MAC)), honest)
		host.add(name, by(rule, asRequest(m.bytes()).toAll(h.MAC)), honestDiscover(h))
	}
	broken("another's", "no-foreign-chaddr", func(m *message) { copy(m.chaddr[:], h.PeerMAC[:]) })
	broken("another's, with one's own identifier", "no-foreign-chaddr", func(m *message) {
		copy(m.chaddr[:], h.PeerMAC[:])
		m.options = options53(discover, clientID(h.MAC))
	})
	for _, n := range []byte{0, 5, 16, 255} {
		broken(fmt.Sprintf("hlen %d", n), "no-foreign-chaddr", func(m *message) { m.hlen = n })
	}
	for _, n := range []byte{0, 6, 32, 255} {
		broken(fmt.Sprintf("htype %d", n), "no-foreign-chaddr", func(m *message) { m.htype = n })
	}
	m := relayedDiscover(h)
	m.hlen = 16
	r.add("eth.src another's, relayed",
		by("no-spoofed-source", between(relayedDiscover(h).bytes()).in(h.IP, h.Server).link().frame(h.PeerMAC, h.Guest)), honest)
	r.add("hlen 16, relayed", by("no-odd-chaddr", relayed(h, m)), honest)
	m = newRequest(h.MAC, discover)
	copy(m.chaddr[6:], h.PeerMAC[:]) // a new client for who looks at all 16 bytes
	host.add("bytes behind hlen", by("no-foreign-chaddr", asRequest(m.bytes()).toAll(h.MAC)), honestDiscover(h))
	host.add("eth.src as well", by("no-spoofed-source", asRequest(newRequest(h.PeerMAC, discover).bytes()).toAll(h.PeerMAC)), honestDiscover(h))
	return append(r.cases, host.cases...)
}

func clientIDs(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "client identifier", policy: p.dhcpHost}
	own, foreign := clientID(h.MAC), clientID(h.PeerMAC)
	duid := option(optClientID, cat([]byte{255, 0, 0, 0, 1, 0, 3, 0, 1}, h.PeerMAC[:])...) // RFC 4361, DUID-LL
	for _, c := range []struct {
		name    string
		options []byte
	}{
		{"a hardware address", foreign},
		{"text", option(optClientID, []byte("\x00victim")...)},
		{"DUID", duid},
		{"UUID", option(optClientID, make([]byte, 17)...)},
		{"another hardware type", option(optClientID, cat([]byte{6}, h.PeerMAC[:])...)},
		{"one byte", option(optClientID, 1)},
		{"behind one's own as another option", cat(option(optVendor, own[2:]...), option(optClientID, 255, 1, 2))},
	} {
		m := newRequest(h.MAC, discover, c.options)
		r.add(c.name, by("no-foreign-client-id", asRequest(m.bytes()).toAll(h.MAC)), honestDiscover(h))
	}
	for _, c := range []struct {
		name    string
		options []byte
	}{
		{"split", cat(option(optClientID, foreign[2:5]...), option(optClientID, foreign[5:]...))},
		{"behind one's own", cat(own, foreign)},
		{"in front of one's own", cat(foreign, own)},
		{"of a type without a field, behind one's own", cat(own, option(optClientID, make([]byte, 17)...))},
	} {
		m := newRequest(h.MAC, discover, c.options)
		r.add(c.name, repeated(asRequest(m.bytes()).toAll(h.MAC)), honestDiscover(h))
	}
	return r.cases
}

// repeated is a frame that says two different things where only one can be true.
func repeated(b []byte) Frame { return malformed(filter.DHCPCause(dhcp.CauseRepeated), b) }

func foreignLeases(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "RELEASE and DECLINE", policy: p.dhcpHost}
	server := address(optServerID, h.Server)
	rel := newRequest(h.MAC, release, server)
	rel.client = h.IP
	dec := newRequest(h.MAC, decline, address(optRequested, h.IP), server)
	released := by("own-dhcp", toServer(h, rel))
	declined := by("own-dhcp", asRequest(dec.bytes()).toAll(h.MAC))
	bad := func(name, rule string, m message, honest Frame) { r.add(name, by(rule, toServer(h, m)), honest) }

	m := rel
	m.client = h.PeerIP
	bad("RELEASE of another's", "no-foreign-release", m, released)
	m = rel
	m.options = options53(release, server, address(optRequested, h.PeerIP))
	bad("RELEASE with a requested address", "no-foreign-release", m, released)
	m = rel
	copy(m.chaddr[:], h.PeerMAC[:])
	bad("RELEASE in another's name", "no-foreign-chaddr", m, released)
	m = rel
	m.options = options53(release, address(optServerID, h.OtherServer))
	bad("RELEASE to another server", "no-foreign-server", m, released)
	m = rel
	m.client = netip.Addr{}
	bad("RELEASE of nothing", "no-foreign-release", m, released)

	m = dec
	m.options = options53(decline, address(optRequested, h.IP), address(optRequested, h.PeerIP), server)
	r.add("DECLINE of one's own and another's", repeated(asRequest(m.bytes()).toAll(h.MAC)), declined)
	m = dec
	m.options = options53(decline, address(optRequested, h.PeerIP), server)
	bad("DECLINE of another's", "no-foreign-decline", m, declined)
	m = dec
	m.client = h.PeerIP
	bad("DECLINE with ciaddr", "no-foreign-decline", m, declined)
	m = dec
	m.options = options53(decline, server)
	bad("DECLINE of nothing", "no-foreign-decline", m, declined)
	m = dec
	m.options = options53(decline, address(optRequested, h.IP), address(optServerID, h.OtherServer))
	bad("DECLINE to another server", "no-foreign-server", m, declined)
	return r.cases
}

// relays: what only a relay agent may write, from a client's port.
func relays(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "giaddr and option 82 from a client", policy: p.relay}
	host := row{table: TableDHCP, name: "giaddr and option 82 from a client", policy: p.dhcpHost}
	honest := by("relayed", relayed(h, relayedDiscover(h, circuit(h))))
	bad := func(name string, change func(*message)) {
		m := newRequest(h.MAC, discover)
		change(&m)
		b := asRequest(m.bytes()).toAll(h.MAC)
		r.add(name, by("no-client-relay", b), honest)
		host.add(name, by("no-relay", b), honestDiscover(h))
	}
	bad("giaddr", func(m *message) { m.relay = h.OtherRelay })
	bad("hops", func(m *message) { m.hops = 1 })
	bad("option 82", func(m *message) { m.options = options53(discover, circuit(h)) })
	bad("option 82, empty", func(m *message) { m.options = options53(discover, option(optAgent)) })
	bad("option 82 in file", func(m *message) {
		m.options, m.file = options53(discover, option(optOverload, 1)), cat(circuit(h), []byte{optEnd})
	})
	two := newRequest(h.MAC, discover)
	c := circuit(h)
	two.options = options53(discover, option(optAgent, c[2:5]...), option(optAgent, c[5:]...))
	r.add("option 82 in two", repeated(asRequest(two.bytes()).toAll(h.MAC)), honest)
	relay := newRequest(h.MAC, discover)
	relay.relay = h.OtherRelay
	host.add("from port 67", by("no-bootreply", between(relay.bytes()).toAll(h.MAC)), honestDiscover(h))
	return append(r.cases, host.cases...)
}

func relayLimits(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "hops, giaddr and link selection", policy: p.relay}
	honest := by("relayed", relayed(h, relayedDiscover(h, circuit(h))))
	bad := func(name, rule string, change func(*message)) {
		m := relayedDiscover(h, circuit(h))
		change(&m)
		r.add(name, by(rule, relayed(h, m)), honest)
	}
	for _, n := range []byte{5, 16, 17, 255} { // RFC 1542 discards above 16
		bad(fmt.Sprintf("%d hops", n), "no-far-client", func(m *message) { m.hops = n })
	}
	r.add("a server's answer", by("no-server-message", relayed(h, rogue(h))), honest)
	bad("giaddr of another relay", "no-foreign-relay", func(m *message) { m.relay = h.OtherRelay })
	bad("no giaddr", "no-foreign-relay", func(m *message) { m.relay = netip.Addr{} })
	link := func(a ...byte) []byte { return option(5, a...) }
	ours, theirs := link(h.Link.Masked().Addr().AsSlice()...), link(198, 51, 100, 0)
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"link selection", suboptions(theirs)}, {"link selection behind ours", suboptions(ours, theirs)},
		{"link selection in front of ours", suboptions(theirs, ours)},
		{"link selection, below", suboptions(link(10, 0, 0, 0))},
	} {
		bad(c.name, "no-foreign-link", func(m *message) { m.options = options53(discover, c.data) })
	}
	for _, c := range []struct {
		name    string
		options []byte
	}{
		{"link selection in a second option 82", cat(suboptions(ours), suboptions(theirs))},
		{"link selection split over two", cat(circuit(h), option(optAgent, theirs[:4]...), option(optAgent, theirs[4:]...))},
	} {
		m := relayedDiscover(h, circuit(h))
		m.options = options53(discover, c.options)
		r.add(c.name, repeated(relayed(h, m)), honest)
	}
	return r.cases
}

func serverChoice(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "server identifier of a SELECT", policy: p.dhcpHost}
	wanted := address(optRequested, h.IP)
	selects := func(ids ...netip.Addr) []byte {
		options := wanted
		for _, id := range ids {
			options = cat(options, address(optServerID, id))
		}
		return asRequest(newRequest(h.MAC, request, options).bytes()).toAll(h.MAC)
	}
	honest := by("own-dhcp", selects(h.Server))
	r.add("another's", by("no-foreign-server", selects(h.OtherServer)), honest)
	r.add("above the chosen", by("no-foreign-server", selects(allAddresses)), honest)
	r.add("none's", by("no-foreign-server", selects(anyAddress)), honest)
	r.add("another's behind the chosen", repeated(selects(h.Server, h.OtherServer)), honest)
	r.add("another's in front of the chosen", repeated(selects(h.OtherServer, h.Server)), honest)
	return r.cases
}

// superFrames: one UDP header, many datagrams. The second message stands where the
// first one's padding would.
func superFrames(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "GSO", policy: p.dhcpHost}
	first := newRequest(h.MAC, discover).bytes()
	add := func(name string, second message, size int) {
		u := asRequest(cat(first, second.bytes()))
		f := malformed(filter.CauseGSO, u.in(h.IP, h.Server).link().frame(h.PeerMAC, h.MAC))
		f.GSOSize = size
		r.add(name, f, honestDiscover(h))
	}
	starve := newRequest(h.PeerMAC, discover)
	add("another's DISCOVER behind one's own", starve, len(first))
	add("an OFFER behind one's own DISCOVER", rogue(h), len(first))
	add("cut elsewhere", starve, 200)
	pxe := udp{srcPort: 4011, dstPort: 4011, payload: cat(newRequest(h.MAC, request, address(optServerID, h.Server)).bytes(), rogue(h).bytes())}
	f := malformed(filter.CauseGSO, pxe.in(h.IP, h.PeerIP).link().frame(h.PeerMAC, h.MAC))
	f.GSOSize = len(first)
	r.add("an OFFER on PXE's port 4011", f, honestDiscover(h))
	return r.cases
}
