package relay

import (
	"errors"
	"sync"

	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/message"
	"github.com/postern-fw/postern/relay/wire"
)

// arena is memory for messages on their way, whose pieces do not move.
type arena struct{ b []byte }

var arenas = sync.Pool{New: func() any { return new(arena) }}

// take is room for one message.
func (a *arena) take() []byte {
	if cap(a.b)-len(a.b) < roomLen {
		a.b = make([]byte, 0, 32*roomLen)
	}
	n := len(a.b)
	return a.b[n : n : n+roomLen]
}

// roomLen is what a message may become before it is found to be too long.
const roomLen = message.MaxLen + 300

// used keeps what was written into the last room.
func (a *arena) used(n int) { a.b = a.b[:len(a.b)+n] }

// letter is a client's message with what is around it.
type letter struct {
	wire.Datagram
	origin wire.Origin
	m      dhcp.Message
	mac    binding.MAC
	*circuit
}

// heard reads a batch of frames of an interface.
func (a *Agent) heard(p *port, f wire.Frames, b *wire.Batch) {
	var out *wire.Outbox
	if a.udp != nil {
		out = a.udp.Outbox()
	}
	mem := arenas.Get().(*arena)
	mem.b = mem.b[:0]
	failed := func(error) { p.reasons[NotSent].Add(1) }
	now := binding.BootTime()
	twice := f == wire.TaggedRequests && p.circuit(0) != nil
	var l letter
	for i := range b.Len() {
		l.origin = b.Origin(i)
		if twice && !l.origin.Tagged {
			continue // another socket reads it
		}
		r := a.read(p, b.Bytes(i), &l)
		if r == Relayed {
			if l.origin.Outgoing {
				r = a.passed(&l, now)
			} else {
				r = a.request(&l, now, out, mem, failed)
			}
		}
		switch {
		case r == Relayed:
			p.relayed(l.m.Type)
		case r == NoRequest && a.snoops: // what is for all comes by at every port
		case r == NoRequest:
			a.later(p, b.Bytes(i), l.origin, firstWait)
		default:
			a.drop(&p.counters, r, p.ifi.Name, &l, nil)
		}
	}
	if out != nil {
		out.Done(failed)
	}
	arenas.Put(mem)
}

// read decodes a frame as far as it has to be sound, whoever sent it.
func (a *Agent) read(p *port, frame []byte, l *letter) Reason {
	l.m, l.circuit, l.mac = dhcp.Message{}, nil, binding.MAC{}
	switch l.Decode(frame, !l.origin.Unsummed) {
	case wire.FaultFrame:
		return Frame
	case wire.FaultFragment:
		return Fragment
	case wire.FaultChecksum:
		return Checksum
	}
	vlan := uint16(0)
	if l.origin.Tagged {
		vlan = l.origin.VLAN
	}
	if l.circuit = p.circuit(vlan); l.circuit == nil {
		return VLAN
	}
	return sound(l)
}

func sound(l *letter) Reason {
	l.m.Decode(l.Payload)
	switch {
	case l.m.Malformed != dhcp.CauseNone:
		return Malformed
	case !l.m.HasCookie:
		return NotDHCP
	case l.m.HType() != 1 || l.m.HLen() != 6:
		return NotDHCP
	}
	copy(l.mac[:], l.m.CHAddr())
	return Relayed
}

// request leads a client's message to the servers.
func (a *Agent) request(l *letter, now int64, out *wire.Outbox, mem *arena, failed func(error)) Reason {
	if r := a.allowed(l); r != Relayed {
		return r
	}
	info := mem.take()
	policy := l.agent.policy()
	r := request(l, now)
	if r.HasInfo = l.m.Has(dhcp.OptRelayAgentInfo) && policy != message.Replace; r.HasInfo {
		r.Info = string(message.Option(&l.m, dhcp.OptRelayAgentInfo))
	}
	switch l.m.Type {
	case message.Release, message.Decline:
		c, err := a.table.Released(l.Place, l.mac, r.ClientID, r.Address)
		if err != nil {
			return NotHeld
		}
		if !a.ledger.enter(entry{changes: [2]binding.Change{c}, n: 1}) {
			return Busy
		}
	default:
		if l.m.GIAddr() != 0 {
			break // the other agent gets the answer
		}
		if err := a.table.Asked(l.Interface, r); errors.Is(err, binding.ErrTooFast) {
			return TooFast
		} else if err != nil {
			return TooManyClients
		}
	}
	if out == nil || !a.forUs(l) {
		return Relayed // the way goes on without us
	}
	info = l.info(info, l.mac, l.agent.Option82.Override, l.Dst != 0xffffffff)
	mem.used(len(info))
	b, err := message.ToServer(mem.take(), &l.m, l.giaddr, policy, info)
	switch {
	case errors.Is(err, message.ErrHasInfo):
		return HasInfo
	case errors.Is(err, message.ErrInfo):
		return Malformed
	case err != nil:
		return TooLong
	}
	mem.used(len(b))
	for _, s := range l.servers {
		out.Add(b, l.giaddr, s, failed)
	}
	return Relayed
}

// allowed checks what a client may send.
func (a *Agent) allowed(l *letter) Reason {
	switch {
	case l.m.Op() != message.BootRequest, l.m.Type == message.Offer, l.m.Type == message.ACK, l.m.Type == message.NAK:
		return TypeOfServer
	case l.m.Type == 0 || int(l.m.Type) >= len(messageTypes):
		return NotDHCP
	case l.m.GIAddr() != 0 && !l.config.Trusted:
		return GIAddr
	case l.m.GIAddr() == 0 && l.mac != l.EthSrc && !l.config.Trusted:
		return Chaddr
	case l.m.Has(dhcp.OptRelayAgentInfo) && (a.snoops && !l.config.Trusted || l.agent.policy() == message.Drop):
		return HasInfo
	case int(l.m.Hops()) >= l.agent.Hops:
		return Hops
	}
	return Relayed
}

// forUs says whether a message is to be relayed: others find their own way to a server.
func (a *Agent) forUs(l *letter) bool {
	return l.Dst == 0xffffffff || l.EthDst == [6]byte{255, 255, 255, 255, 255, 255} || l.Dst == l.address || l.Dst == l.giaddr
}

// request is what is to be remembered of a message.
func request(l *letter, now int64) binding.Request {
	r := binding.Request{MAC: l.mac, XID: l.m.XID(), VLAN: l.VLAN, Type: l.m.Type, Rapid: l.m.Has(80), At: now, Via: l.circuit}
	r.Server = binding.IPv4(message.Address(&l.m, dhcp.OptServerID))
	r.Address = binding.IPv4(message.Address(&l.m, dhcp.OptRequestedIP))
	if r.Address == 0 || l.m.Type == message.Release {
		r.Address = binding.IPv4(l.m.CIAddr())
	}
	if l.m.Has(dhcp.OptClientID) {
		r.ClientID = string(message.Option(&l.m, dhcp.OptClientID))
	}
	return r
}
