package evasions

import (
	"encoding/binary"
	"net/netip"
)

// Message types (RFC 2132, RFC 3203, RFC 4388).
const (
	discover, offer, request, decline, ack, nak, release, inform = 1, 2, 3, 4, 5, 6, 7, 8

	forceRenew, leaseQuery, leaseUnassigned, leaseUnknown, leaseActive = 9, 10, 11, 12, 13
)

// Option codes (RFC 2132).
const (
	optPad, optMask, optRouter, optHostname, optVendor, optRequested = 0, 1, 3, 12, 43, 50
	optLeaseTime, optOverload, optType, optServerID, optClientID     = 51, 52, 53, 54, 61
	optTFTPServer, optBootfile, optAgent, optRoutes, optEnd          = 66, 67, 82, 121, 255
)

const bootRequest, bootReply = 1, 2

// message is a DHCP message. The zero values of its fixed part are zeros on the
// wire.
type message struct {
	op, htype, hlen, hops byte
	client, your, relay   netip.Addr
	chaddr                [16]byte
	sname, file           []byte
	options               []byte
	noCookie              bool
}

// newRequest is a client's message: its type, and options that an End follows.
func newRequest(client MAC, typ byte, options ...[]byte) message {
	m := message{op: bootRequest, htype: 1, hlen: 6}
	copy(m.chaddr[:], client[:])
	m.options = options53(typ, options...)
	return m
}

// newReply is a server's to a client.
func newReply(client MAC, your netip.Addr, typ byte, options ...[]byte) message {
	m := newRequest(client, typ, options...)
	m.op, m.your = bootReply, your
	return m
}

// options53 is an options field in the usual order: the type first, an End last.
func options53(typ byte, options ...[]byte) []byte {
	return cat(option(optType, typ), cat(options...), []byte{optEnd})
}

// option is one option, its length right.
func option(code byte, data ...byte) []byte { return cat([]byte{code, byte(len(data))}, data) }

// address is an option that holds an IPv4 address.
func address(code byte, a netip.Addr) []byte { return option(code, a.AsSlice()...) }

// clientID is a client identifier that is a hardware address.
func clientID(m MAC) []byte { return option(optClientID, cat([]byte{1}, m[:])...) }

// suboptions is option 82.
func suboptions(sub ...[]byte) []byte { return option(optAgent, cat(sub...)...) }

// bytes is the message, padded to the 300 bytes of BOOTP.
func (m message) bytes() []byte {
	b := m.exact()
	return append(b, make([]byte, max(0, 300-len(b)))...)
}

// exact is the message without padding.
func (m message) exact() []byte {
	b := make([]byte, 236)
	copy(b, []byte{m.op, m.htype, m.hlen, m.hops})
	binary.BigEndian.PutUint32(b[4:], 0x3903f326)
	for off, a := range map[int]netip.Addr{12: m.client, 16: m.your, 24: m.relay} {
		if a.IsValid() {
			copy(b[off:], a.AsSlice())
		}
	}
	copy(b[28:], m.chaddr[:])
	copy(b[44:108], m.sname)
	copy(b[108:236], m.file)
	if m.noCookie {
		return b
	}
	return cat(b, []byte{99, 130, 83, 99}, m.options)
}

// asRequest is the datagram from a client's port to a server's, asReply the other
// way, between gateways the one from relay to server.
func asRequest(b []byte) udp { return udp{srcPort: portClient, dstPort: portServer, payload: b} }
func asReply(b []byte) udp   { return udp{srcPort: portServer, dstPort: portClient, payload: b} }
func between(b []byte) udp   { return udp{srcPort: portServer, dstPort: portServer, payload: b} }

// toAll is the datagram as a broadcast from a host that has no address yet.
func (u udp) toAll(src MAC) []byte {
	return u.in(anyAddress, allAddresses).link().frame(broadcast, src)
}
