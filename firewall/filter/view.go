package filter

import (
	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// views are the layers of a frame. Those of a plain frame, which few rules need, are decoded when somebody
// looks at one.
type views struct {
	frame frame.Frame
	arp   arp.Packet
	ipv4  frame.IPv4
	ipv6  frame.IPv6
	udp   frame.UDP
	dhcp  dhcp.Message
}

// Frame is the view of the link header.
func (p *Packet) Frame() *frame.Frame { return &p.seen().frame }

// ARP is valid if HasARP.
func (p *Packet) ARP() *arp.Packet { return &p.seen().arp }

// IPv4 is valid if HasIPv4.
func (p *Packet) IPv4() *frame.IPv4 { return &p.seen().ipv4 }

// IPv6 is valid if HasIPv6.
func (p *Packet) IPv6() *frame.IPv6 { return &p.seen().ipv6 }

// UDP is valid if HasUDP.
func (p *Packet) UDP() *frame.UDP { return &p.seen().udp }

// DHCP is valid if HasDHCP.
func (p *Packet) DHCP() *dhcp.Message { return &p.views.dhcp } // decoded at once: its options tell whether the frame is sound

// seen are the views, decoded.
func (p *Packet) seen() *views {
	if p.unseen {
		p.see()
	}
	return &p.views
}

func (p *Packet) see() {
	p.unseen = false
	v := &p.views
	v.frame.Decode(p.b)
	switch p.kind {
	case KindARP:
		v.arp.Decode(v.frame.Payload)
	case KindDHCP:
		v.ipv4.Decode(v.frame.Payload)
		v.udp.Decode(v.ipv4.Payload)
	}
}

// Len is how many bytes of the frame are here.
func (p *Packet) Len() int { return len(p.b) }

// Meta is what is known beside the bytes: what Decode was given, or the zero Meta.
func (p *Packet) Meta() *Meta {
	if p.meta == nil {
		return &unknown
	}
	return p.meta
}

var unknown Meta
