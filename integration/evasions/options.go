package evasions

import (
	"bytes"
	"fmt"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/dhcp"
)

// optionCases are the rows about how options are laid out.
func optionCases(h Host, p roles) (cases []Case) {
	for _, f := range []func(Host, roles) []Case{hiddenType, overload, twoTypes, pastTheEnd} {
		cases = append(cases, f(h, p)...)
	}
	return cases
}

var end = []byte{optEnd}

// hiding are the forms of an OFFER that has its type where few look for it. Each
// lays out m's options anew.
func hiding(m message) []struct {
	name string
	message
} {
	typ, others := option(optType, offer), m.options[3:len(m.options)-1]
	pads := make([]byte, 300)
	with := func(options, file, sname []byte) message {
		m.options, m.file, m.sname = options, file, sname
		return m
	}
	in := func(fields byte, more ...[]byte) []byte {
		return cat(others, option(optOverload, fields), cat(more...), end)
	}
	return []struct {
		name string
		message
	}{
		{"last", with(cat(others, option(optVendor, pads[:200]...), typ, end), nil, nil)},
		{"behind 300 pads", with(cat(others, pads, typ, end), nil, nil)},
		{"behind the End, in file", with(in(1), cat(typ, end), nil)},
		{"behind the End, in sname", with(in(2), nil, cat(typ, end))},
		{"behind file's pads, in sname", with(in(3), cat(pads[:127], end), cat(typ, end))},
		{"last of file", with(in(1), cat(pads[:124], typ, end), nil)},
		{"last of sname", with(in(2), nil, cat(pads[:60], typ, end))},
		{"behind pads and overload", with(in(1, pads), cat(typ, end), nil)},
	}
}

func hiddenType(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "option 53 hidden", policy: p.dhcpHost}
	for _, f := range hiding(rogue(h)) {
		r.add(f.name, by("no-server-message", fromServer(h, f.message)), honestDiscover(h))
	}
	m := rogue(h)
	m.options = cat(address(optServerID, h.Server), end, option(optType, offer), end)
	r.add("behind the End", malformed(filter.DHCPCause(dhcp.CauseNoMessageType), fromServer(h, m)), honestDiscover(h))
	return r.cases
}

// overload: the fields that hold a name and a file's, or options.
func overload(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "option 52", policy: p.dhcpServer}
	id := address(optServerID, h.IP)
	boot := newReply(h.Guest, h.OtherServer, offer, id, option(optTFTPServer, []byte("192.0.2.2")...), option(optBootfile, []byte("pxelinux.0")...))
	boot.sname, boot.file = []byte("boot.example.net"), []byte("pxelinux.0")
	honest := by("answer", fromServer(h, boot))
	long := newReply(h.Guest, h.OtherServer, offer, id, option(optOverload, 1))
	long.file = cat(option(optBootfile, bytes.Repeat([]byte("a/"), 50)...), end)
	overloaded := by("answer", fromServer(h, long))

	m := newReply(h.Guest, h.OtherServer, offer, id)
	for i, f := range hiding(m) {
		twin := honest
		if i%2 == 0 {
			twin = overloaded
		}
		if f.file != nil || f.sname != nil {
			r.add("type "+f.name, by("no-server-message", fromGuest(h, f.message)), twin)
		}
	}
	bad := func(name string, options, file, sname []byte) {
		m.options, m.file, m.sname = options, file, sname
		r.add(name, malformed(filter.DHCPCause(dhcp.CauseOverload), fromGuest(h, m)), honest)
	}
	typ := option(optType, offer)
	over := func(fields ...byte) []byte { return option(optOverload, fields...) }
	bad("itself, in file", options53(discover, over(1)), cat(over(2), end), cat(typ, end))
	bad("itself, in sname", options53(discover, over(2)), cat(typ, end), cat(over(1), end))
	bad("itself, the same", options53(discover, over(1)), cat(over(1), typ, end), nil)
	bad("two values", options53(discover, over(1), over(2)), cat(typ, end), cat(typ, end))
	for _, n := range []byte{0, 4, 255} {
		bad(fmt.Sprintf("value %d", n), options53(discover, over(n)), cat(typ, end), cat(typ, end))
	}
	bad("no value", options53(discover, over()), cat(typ, end), cat(typ, end))
	bad("two bytes", options53(discover, over(1, 2)), cat(typ, end), cat(typ, end))
	return r.cases
}

func twoTypes(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "option 53 twice, or not one byte", policy: p.dhcpServer}
	routes := bytes.Repeat([]byte{24, 198, 51, 100, 192, 0, 2, 1}, 40)
	m := newReply(h.Guest, h.OtherServer, ack, address(optServerID, h.IP),
		option(optRoutes, routes[:255]...), option(optRoutes, routes[255:]...),
		option(optVendor, routes[:100]...), option(optVendor, routes[:100]...))
	honest := by("answer", fromServer(h, m))
	typ := func(data ...byte) []byte { return option(optType, data...) }
	bad := func(name string, c dhcp.Cause, options, file []byte) {
		m.options, m.file = cat(address(optServerID, h.IP), options, end), file
		r.add(name, malformed(filter.DHCPCause(c), fromGuest(h, m)), honest)
	}
	bad("DISCOVER, then OFFER", dhcp.CauseTwoTypes, cat(typ(discover), typ(offer)), nil)
	bad("OFFER, then DISCOVER", dhcp.CauseTwoTypes, cat(typ(offer), typ(discover)), nil)
	bad("apart", dhcp.CauseTwoTypes, cat(typ(discover), option(optVendor, routes[:200]...), typ(offer)), nil)
	bad("three times", dhcp.CauseTwoTypes, cat(typ(discover), typ(discover), typ(offer)), nil)
	bad("in file", dhcp.CauseTwoTypes, cat(typ(discover), option(optOverload, 1)), cat(typ(offer), end))
	bad("length 0", dhcp.CauseTypeLength, typ(), nil)
	bad("length 2", dhcp.CauseTypeLength, typ(offer, 0), nil)
	bad("length 2, two types", dhcp.CauseTypeLength, typ(discover, offer), nil)
	bad("split", dhcp.CauseTypeLength, cat(typ(), typ(offer)), nil)
	bad("split, the empty one last", dhcp.CauseTypeLength, cat(typ(offer), typ()), nil)
	bad("split over file", dhcp.CauseTypeLength, cat(typ(), option(optOverload, 1)), cat(typ(offer), end))
	m.sname = cat(typ(offer), end)
	bad("split over file and sname", dhcp.CauseTypeLength, option(optOverload, 3), cat(typ(), end))
	return r.cases
}

func pastTheEnd(h Host, p roles) []Case {
	r := row{table: TableDHCP, name: "options past the end", policy: p.dhcpHost}
	m := newRequest(h.MAC, discover)
	bad := func(name string, options, file []byte) {
		m.options, m.file = options, file
		b := asRequest(m.exact()).toAll(h.MAC)
		r.add(name, malformed(pastEnd, b), honestDiscover(h))
	}
	typ, name := option(optType, discover), option(optHostname, []byte("host")...)
	bad("no End", cat(typ, name), nil)
	bad("no End, pads", cat(typ, name, make([]byte, 60)), nil)
	bad("nothing", []byte{}, nil)
	bad("no length", cat(typ, []byte{optHostname}), nil)
	bad("no data", cat(typ, []byte{optHostname, 4}), nil)
	bad("one byte over", cat(typ, []byte{optHostname, 6}, []byte("host"), end), nil)
	bad("length 255", cat(typ, []byte{optHostname, 255}, []byte("host"), end), nil)
	bad("the type's length 255", cat([]byte{optType, 255, discover}, name, end), nil)
	bad("file without End", options53(discover, option(optOverload, 1)), option(optType, discover))
	bad("past file's end", options53(discover, option(optOverload, 1)), cat(make([]byte, 120), []byte{optHostname, 20}))
	return r.cases
}
