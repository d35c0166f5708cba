package filter

import (
	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// Packet is one frame, led through every view as far as it goes. It is owned by
// the caller, who may use it again and again; its slices point into the bytes
// given to Decode.
type Packet struct {
	Meta  Meta
	Frame frame.Frame
	// The Has fields say which views are valid. HasARP holds for RARP as well,
	// HasIPv4 and HasIPv6 for the outermost network layer alone.
	HasARP, HasIPv4, HasIPv6, HasUDP, HasDHCP bool

	ARP  arp.Packet
	IPv4 frame.IPv4
	UDP  frame.UDP
	DHCP dhcp.Message
	// Malformed is the first cause found, from the outside in.
	Malformed Cause
}

// Decode overwrites p with a view of the frame b and of what is known beside
// it. It cannot fail and does not allocate.
func (p *Packet) Decode(b []byte, m Meta) {
	*p = Packet{Meta: m}
	p.Frame.Decode(b)
}
