package afpacket

import (
	"net"
	"net/netip"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// Type and Addr are mdlayher/packet's own, so that what was written for its
// Conn runs over this one.
type (
	Type = packet.Type
	Addr = packet.Addr
)

// The types of a Conn.
const (
	Raw      = packet.Raw      // frames with their Ethernet header
	Datagram = packet.Datagram // payloads; the header is built from the address
)

// Classifier decides on a frame. *firewall.Firewall is one; a nil *Firewall
// drops. Classify is called by many goroutines and must keep neither p nor the
// bytes behind it.
type Classifier interface {
	Classify(p *filter.Packet) firewall.Decision
}

// Config says how a Conn, a Ring or an Overlay sends. The zero value and nil
// are valid: no firewall of its own, only the interface's hooks.
type Config struct {
	// Firewall decides on every frame before the interface's hooks do. A nil
	// interface means none; a nil *firewall.Firewall in it drops everything.
	Firewall Classifier
	// Bypass sends round the queueing discipline (PACKET_QDISC_BYPASS): tc egress
	// does not see the frames, nftables' netdev egress hook does.
	Bypass bool
	// Filter limits what is read, from before the first frame on.
	Filter []bpf.RawInstruction
	// Event, if not nil, is told of each refusal, of each frame that only `mode:
	// audit` let pass, and of each frame whose deciding rule has `log`. It runs in
	// the sender's goroutine, and must not write to the Ring it is told of.
	Event func(*Event)
}

// Message is one frame of a WriteBatch.
type Message struct {
	// Bytes and Addr are WriteTo's arguments.
	Bytes []byte
	Addr  *Addr
	// Err is WriteBatch's answer: nil if the kernel took the frame.
	Err error
}

// Frame is a frame between the two layers, as a Lower sees it. Bytes may be
// rewritten in place, not kept.
type Frame struct {
	Bytes []byte
	Mark  uint32
}

// Lower is a hook of the layer below the firewall, tc's place: Accept passes
// the frame on, Drop refuses it, Forward re-injects it at iface, where it is not
// classified again.
type Lower func(f *Frame) (v firewall.Verdict, iface string)

// VXLAN is an overlay network (RFC 7348) as one end of it sees the other.
type VXLAN struct {
	VNI           uint32     // 24 bits
	Local, Remote netip.Addr // IPv4, the outer addresses
	// NextHop is the outer destination address on the underlay.
	NextHop net.HardwareAddr
	// Port is the outer UDP destination port; 0 means 4789.
	Port uint16
	// HardwareAddr is the overlay's own address.
	HardwareAddr net.HardwareAddr
}

func opError(op string, ifi *net.Interface, err error) error {
	e := &net.OpError{Op: op, Net: "packet", Err: err}
	if ifi != nil {
		e.Source = place(ifi.Name)
	}
	return e
}

// place lets an error name its interface.
type place string

func (place) Network() string  { return "packet" }
func (p place) String() string { return string(p) }
