package filter

import (
	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// Cause says why a frame is malformed: the layer in the high byte, that
// layer's own cause in the low one. The zero value means that it is not.
type Cause uint16

// The layers of a Cause.
const (
	layerFrame Cause = (iota + 1) << 8
	layerARP
	layerDHCP
	layerPacket
)

// The causes that only the whole packet shows.
const (
	CauseDHCPFragment Cause = layerPacket + 1 + iota // first fragment of a DHCP datagram
	CauseGSO                                         // GSO super-frame of a protocol that needs inspection
)

// FrameCause, ARPCause and DHCPCause make a Cause of a layer's own.
func FrameCause(c frame.Cause) Cause { return compose(layerFrame, uint8(c)) }
func ARPCause(c arp.Cause) Cause     { return compose(layerARP, uint8(c)) }
func DHCPCause(c dhcp.Cause) Cause   { return compose(layerDHCP, uint8(c)) }

func compose(layer Cause, c uint8) Cause {
	if c == 0 {
		return 0
	}
	return layer | Cause(c)
}

// String gives the cause in words.
func (c Cause) String() string {
	switch code := uint8(c); c &^ 0xff {
	case layerFrame:
		return frame.Cause(code).String()
	case layerARP:
		return arp.Cause(code).String()
	case layerDHCP:
		return dhcp.Cause(code).String()
	case layerPacket:
		return [...]string{"", "first fragment of a DHCP datagram", "GSO super-frame"}[code]
	}
	return "none"
}
