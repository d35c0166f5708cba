// Package announce tells a segment by ARP who has an address: probes (RFC 5227), announcements
// in both forms and at a bounded pace, and the defence of an address that somebody else
// announces.
//
// It refuses to know who holds an address: its sockets are guarded, and what is not held
// does not get out of them, whatever is done here.
package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
)

// ErrInUse is matched where somebody else uses an address.
var ErrInUse = errors.New("the address is in use")

// Options say how addresses are announced.
type Options struct {
	// Count announcements, an Interval apart; then one at each Refresh.
	Count             int
	Interval, Refresh time.Duration
	// Rate is how many frames a second leave an interface at most, after Burst.
	Rate, Burst int
	// Defend is the time between two defences of an address.
	Defend time.Duration
	// Probe is RFC 5227's second: PROBE_WAIT, PROBE_MIN, half of PROBE_MAX and of ANNOUNCE_WAIT.
	Probe time.Duration
	// Listen opens a guarded socket for ARP frames.
	Listen func(*net.Interface) (net.PacketConn, error)
	// Conflict is told of another machine that announces an address of ours. It must not wait.
	Conflict func(address netip.Addr, by net.HardwareAddr)
	Log      *slog.Logger
}

// Voice is a cluster.Voice for addresses on several interfaces.
type Voice struct{ ports map[netip.Addr]*port }

// New begins to listen on the interfaces of the addresses. It works until ctx is done.
func New(ctx context.Context, o Options, interfaces map[netip.Addr]string) (*Voice, error) {
	v := &Voice{ports: map[netip.Addr]*port{}}
	byName := map[string]*port{}
	for a, name := range interfaces {
		if byName[name] == nil {
			p := newPort(o, name)
			if err := p.open(); err != nil {
				for _, p := range byName {
					_ = p.conn().Close()
				}
				return nil, err
			}
			byName[name] = p
		}
		v.ports[a] = byName[name]
	}
	for _, p := range byName {
		go p.send(ctx)
		go p.receive(ctx)
		context.AfterFunc(ctx, func() { _ = p.conn().Close() })
	}
	return v, nil
}

// Announce implements cluster.Voice.
func (v *Voice) Announce(a netip.Addr) { v.ports[a].announce(a) }

// Silence implements cluster.Voice.
func (v *Voice) Silence(a netip.Addr) { v.ports[a].silence(a) }

// Probe implements cluster.Voice (RFC 5227, 2.1.1). It fails with ErrInUse.
func (v *Voice) Probe(ctx context.Context, a netip.Addr) error {
	p := v.ports[a]
	answers, done := p.probe(a)
	defer done()
	second := p.Options.Probe
	wait := rand.N(second + 1)
	for i := 0; i <= 3; i++ {
		select {
		case by := <-answers:
			return fmt.Errorf("%w: %v answers for %v on %s", ErrInUse, by, a, p.name)
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		if wait = second + rand.N(second+1); i == 2 {
			wait = 2 * second
		}
		if i == 3 {
			return nil
		}
		if err := p.write(arp.OperationRequest, netip.IPv4Unspecified(), a, make(net.HardwareAddr, 6)); err != nil {
			return fmt.Errorf("probing for %v: %w", a, err)
		}
	}
	return nil
}

// marshal is a whole frame to all.
func marshal(op arp.Operation, src net.HardwareAddr, sender, target netip.Addr, targetMAC net.HardwareAddr) ([]byte, error) {
	p, err := arp.NewPacket(op, src, sender, targetMAC, target)
	if err != nil {
		return nil, err
	}
	b, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return (&ethernet.Frame{Destination: ethernet.Broadcast, Source: src, EtherType: ethernet.EtherTypeARP, Payload: b}).MarshalBinary()
}

// parse reads what came in; ok is false for what is no ARP for IPv4.
func parse(b []byte) (p *arp.Packet, ok bool) {
	f, p := &ethernet.Frame{}, &arp.Packet{}
	if f.UnmarshalBinary(b) != nil || f.EtherType != ethernet.EtherTypeARP {
		return nil, false
	}
	ok = p.UnmarshalBinary(f.Payload) == nil && p.ProtocolType == uint16(ethernet.EtherTypeIPv4) && len(p.SenderHardwareAddr) == 6
	return p, ok
}
