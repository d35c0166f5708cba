package filter

import (
	"encoding/binary"

	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// Packet is one frame, led through every view as far as it goes. It is owned by
// the caller, who may use it again and again, but not in two goroutines at
// once, not even to read; its slices point into the bytes given to Decode.
//
// A malformed frame stays readable as far as its bytes go, the way Wireshark
// shows it: what is declared and not there is absent, what is there is not.
type Packet struct {
	kind Kind
	// The Has fields say which views are valid. HasARP holds for RARP as well,
	// HasIPv4 and HasIPv6 for the outermost network layer alone.
	HasARP, HasIPv4, HasIPv6, HasUDP, HasDHCP bool
	// plainARP is true for a sound ARP packet whose addresses all mean what they say, and unseen as long as
	// views waits to be decoded.
	plainARP, unseen bool
	// Malformed is the first cause found, from the outside in.
	Malformed Cause
	// bad is a bit for each layer that is malformed, shown one for each that is there.
	bad, shown uint16
	spare      uint16 // so that all up to here is two stores where it is known beforehand

	b    []byte
	meta *Meta
	// found is where the layers' own bytes are: see at. Offsets and no slices: a frame sets most of them anew.
	found [layerCount]span
	walk  optionWalk
	views views

	// Scratch is for whoever classifies the frame. Decode leaves it alone.
	Scratch [8]any
}

// span is from off to end in the frame, in bytes.
type span struct{ off, end uint32 }

// Layer names the layers a field can be in.
type Layer uint8

// The layers. The bytes of one are those of Wireshark's protocol of that name:
// a header without its payload, but the whole of ARP, DHCP, PTP and IEEE 1722.
const (
	LayerNone     Layer = iota
	LayerFrame          // the whole frame
	LayerEth            // 14 bytes
	LayerVLAN           // each tag's TCI and the type behind it: 4 bytes
	LayerLLC            // with SNAP
	LayerARP            // without padding
	LayerIPv4           // with options
	LayerIPv6           // with extension headers
	LayerUDP            // 8 bytes
	LayerDHCP           // the UDP payload
	LayerPTP            // the Ethernet or UDP payload, no longer than it says
	LayerIEEE1722       // the Ethernet or UDP payload
	layerCount
)

// String is the protocol's name in the language.
func (l Layer) String() string {
	return [...]string{"none", "frame", "eth", "vlan", "llc", "arp", "ip", "ipv6", "udp", "dhcp", "ptp", "ieee1722"}[l]
}

// EtherTypes and UDP ports with a meaning here.
const (
	etherIPv4, etherIPv6, etherARP, etherRARP = 0x0800, 0x86dd, 0x0806, 0x8035
	etherPTP, etherIEEE1722                   = 0x88f7, 0x22f0

	portDHCPServer, portDHCPClient, portProxyDHCP = 67, 68, 4011
	portPTPEvent, portPTPGeneral, portIEEE1722    = 319, 320, 17220

	protoTCP = 6
	minPTPv1 = 33
)

// Bytes are the layer's bytes, the outermost tag's for LayerVLAN; nil if the
// frame has no such layer. They may be fewer than the layer should have.
func (p *Packet) Bytes(l Layer) []byte {
	if p.shown&(1<<l) == 0 {
		return nil
	}
	if l == LayerFrame {
		return p.b
	}
	s := p.at(l)
	return p.b[s.off:s.end:s.end]
}

// Decode overwrites p with a view of the frame b and of what is known beside
// it; nil is nothing. It cannot fail and does not allocate. The caller owns both, and leaves
// them alone as long as p is looked at.
func (p *Packet) Decode(b []byte, m *Meta) {
	if m == nil {
		m = &unknown
	}
	if p.walk.of != nil {
		p.walk.of = nil
	}
	// The views and spans are left alone: the Has fields and shown guard them.
	p.meta, p.b = m, b
	if m.GSOSize <= 0 {
		if isPlainARP(b) {
			p.setPlainARP()
			return
		}
		if p.decodePlainDHCP(b) {
			return
		}
	}
	p.decodeLayers(b)
}

func (p *Packet) decodeLayers(b []byte) {
	p.kind, p.HasARP, p.HasIPv4, p.HasIPv6, p.HasUDP, p.HasDHCP, p.plainARP, p.unseen = KindOther, false, false, false, false, false, false, false
	p.Malformed, p.bad, p.shown = 0, 0, 0
	f := &p.views.frame
	f.Decode(b)
	if b != nil {
		p.show(LayerFrame, b, len(b))
	}
	if len(b) >= frame.HeaderLen {
		p.show(LayerEth, b, frame.HeaderLen)
	}
	if f.LLC != nil {
		p.show(LayerLLC, b[f.LLCAt:], len(f.LLC))
	}
	if len(f.Tags()) > 0 {
		p.show(LayerVLAN, b[f.TagAt(0):], len(f.TagBytes(0)))
	}
	p.malformed(LayerEth, FrameCause(f.Malformed))

	payload := f.Payload
	switch f.EtherType {
	case etherARP, etherRARP:
		p.decodeARP(payload)
	case etherIPv4:
		p.decodeIPv4(payload)
	case etherIPv6:
		p.decodeIPv6(payload)
	case etherPTP:
		p.decodePTP(payload)
	case etherIEEE1722:
		p.inspected(LayerIEEE1722, payload, len(payload))
	}
}

// at is where a layer's own bytes are, what Bytes gives, if it is shown.
func (p *Packet) at(l Layer) span {
	if p.kind == KindARP {
		return layersOf[KindARP][l] // as each of the kind has it
	}
	return p.found[l]
}

// show says that a layer is the first n bytes of b, a slice of the frame up to its capacity.
func (p *Packet) show(l Layer, b []byte, n int) {
	off := cap(p.b) - cap(b)
	p.found[l] = span{uint32(off), uint32(off + n)}
	p.shown |= 1 << l
}

// malformed notes that a layer is; the first cause stays.
func (p *Packet) malformed(l Layer, c Cause) {
	if c == 0 {
		return
	}
	p.bad |= 1 << l
	if p.Malformed == 0 {
		p.Malformed = c
	}
}

// inspected notes a layer of a protocol that is looked into message by message:
// a super-frame would hide all but the first.
func (p *Packet) inspected(l Layer, b []byte, n int) {
	if l != LayerARP || n >= 2 {
		p.show(l, b, n)
	}
	if p.Meta().GSOSize > 0 {
		p.malformed(l, CauseGSO)
	}
}

func (p *Packet) decodeARP(b []byte) {
	a := &p.views.arp
	p.HasARP = true
	a.Decode(b)
	p.malformed(LayerARP, ARPCause(a.Malformed))
	p.inspected(LayerARP, b, len(a.Bytes))
	p.plainARP = a.Malformed == arp.CauseNone && b[7] != opDRARPError
}

func (p *Packet) decodeIPv4(b []byte) {
	ip := &p.views.ipv4
	ip.Decode(b)
	p.HasIPv4 = true
	if len(ip.Header) > 0 {
		p.show(LayerIPv4, b, len(ip.Header))
	}
	if ip.TotalLen == 0 && ip.Payload != nil && ip.Proto == protoTCP && p.Meta().GSOSize > 0 {
		ip.Malformed = frame.CauseNone // longer than the field can say (BIG TCP)
	}
	p.malformed(LayerIPv4, FrameCause(ip.Malformed))
	if ip.FragOffset != 0 || ip.Payload == nil {
		return
	}
	proto, rest := ip.Proto, ip.Payload
	if proto == frame.ProtoAH {
		var ok bool
		if proto, rest, ok = frame.SkipAH(proto, rest); !ok {
			p.malformed(LayerIPv4, FrameCause(frame.CauseAuthHeader))
		}
	}
	if proto == frame.ProtoUDP {
		p.decodeUDP(rest, ip.MoreFrags)
	}
}

func (p *Packet) decodeIPv6(b []byte) {
	ip := &p.views.ipv6
	ip.Decode(b)
	p.HasIPv6 = true
	if ip.Header != nil {
		p.show(LayerIPv6, b, len(ip.Header))
	}
	if ip.PayloadLen == 0 && p.Meta().GSOSize > 0 && len(b) > 40 && b[0]>>4 == 6 &&
		(ip.NextHdr == protoTCP || ip.NextHdr == 0 && b[40] == protoTCP) {
		ip.Malformed = frame.CauseNone // a jumbogram (RFC 2675), or without its option (BIG TCP)
	}
	p.malformed(LayerIPv6, FrameCause(ip.Malformed))
	if ip.FragOffset == 0 && ip.Payload != nil && ip.Proto == frame.ProtoUDP {
		p.decodeUDP(ip.Payload, ip.MoreFrags)
	}
}

// decodeUDP is given the payload of an unfragmented packet or of a first
// fragment, whose UDP length rightly exceeds it.
func (p *Packet) decodeUDP(b []byte, fragment bool) {
	u := &p.views.udp
	u.Decode(b)
	if len(u.Header) >= 4 {
		p.HasUDP = true
		p.show(LayerUDP, b, len(u.Header))
	}
	if fragment && u.Malformed == frame.CauseUDPLen && u.Payload != nil {
		u.Malformed = frame.CauseNone
	}
	p.malformed(LayerUDP, FrameCause(u.Malformed))
	switch {
	case !p.HasUDP:
	case u.Port(portDHCPServer) || u.Port(portDHCPClient):
		p.decodeDHCP(fragment)
	case u.Port(portPTPEvent) || u.Port(portPTPGeneral):
		p.decodePTP(u.Payload)
	case u.Port(portProxyDHCP):
		// PXE's own port, which Wireshark shows as well; not judged, for no client
		// takes an address from it. But what cannot be read is malformed here, too.
		if p.views.dhcp.Decode(u.Payload); p.views.dhcp.HasCookie {
			p.setDHCP()
		}
		if p.Meta().GSOSize > 0 {
			p.malformed(LayerDHCP, CauseGSO)
		}
	case u.Port(portIEEE1722) && len(u.Payload) > 0:
		p.inspected(LayerIEEE1722, u.Payload, len(u.Payload))
	}
}

func (p *Packet) decodeDHCP(fragment bool) {
	u := &p.views.udp
	if u.Malformed != frame.CauseNone {
		p.bad |= 1 << LayerDHCP // a frame that claims to be DHCP, and is not
	}
	p.views.dhcp.Decode(u.Payload)
	if fragment {
		p.malformed(LayerDHCP, CauseDHCPFragment)
	}
	p.malformed(LayerDHCP, DHCPCause(p.views.dhcp.Malformed))
	if p.Meta().GSOSize > 0 {
		p.malformed(LayerDHCP, CauseGSO)
	}
	p.setDHCP()
}

// setDHCP shows the message if Wireshark does: if a request or a reply reaches as
// far as its hardware address. An address longer than its field does not count:
// it must not hide the message. Of one that a capture cut before its options end,
// Wireshark shows nothing but that it is there.
func (p *Packet) setDHCP() {
	b, need := p.views.dhcp.Bytes(), 3
	if n := int(p.views.dhcp.HLen()); n > 0 && (p.views.dhcp.Op() == 1 || p.views.dhcp.Op() == 2) {
		need = 28 + min(n, 16)
	}
	if len(b) < need {
		return
	}
	if p.Meta().WireLen > len(p.b) && p.views.dhcp.Malformed == dhcp.CausePastEnd {
		p.show(LayerDHCP, b, 0)
		return
	}
	p.HasDHCP = true
	p.show(LayerDHCP, b, len(b))
}

// decodePTP shows PTP of version 1 or 2 over UDP, and of any over Ethernet, where
// there is enough of it to tell.
func (p *Packet) decodePTP(b []byte) {
	if len(b) < 8 {
		return
	}
	switch n := int(binary.BigEndian.Uint16(b[2:])); {
	case p.HasUDP && binary.BigEndian.Uint16(b) == 1:
		if len(b) >= minPTPv1 {
			p.inspected(LayerPTP, b, len(b))
		}
	case p.HasUDP && b[1]&0x0f != 2:
	case n >= 8 && n < len(b):
		p.inspected(LayerPTP, b, n)
	default:
		p.inspected(LayerPTP, b, len(b))
	}
}
