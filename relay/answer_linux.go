package relay

import (
	"errors"
	"slices"
	"time"

	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/message"
	"github.com/postern-fw/postern/relay/wire"
)

// reply is a server's message on its way to a client.
type reply struct {
	letter
	server  *counters
	request binding.Request
	// change is what it means for the client's binding, if has.
	change binding.Change
	has    bool
}

// answers reads a batch of servers' messages.
func (a *Agent) answers(b *wire.Batch) {
	now := binding.BootTime()
	var direct mail
	for i := range b.Len() {
		r := reply{}
		r.Payload, r.Src = b.Bytes(i), b.Address(i)
		why := a.answer(&r, now)
		if why == Relayed {
			why = a.deliver(&r, &direct)
		}
		if why == Relayed {
			r.server.relayed(r.m.Type)
			continue
		}
		where := ""
		if r.circuit != nil {
			where = r.Interface
		}
		a.drop(r.server, why, where, &r.letter, &r.Src)
	}
	direct.send()
}

// answer checks a server's message, and finds whose it is.
func (a *Agent) answer(r *reply, now int64) Reason {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s := a.servers[r.Src]
	if s == nil || !s.listed {
		r.server = &a.strangers
		return UnknownServer
	}
	r.server = &s.counters
	if why := sound(&r.letter); why != Relayed {
		return why
	}
	switch {
	case r.m.Op() != message.BootReply, r.m.Type != message.Offer && r.m.Type != message.ACK && r.m.Type != message.NAK:
		return TypeOfClient
	case a.giaddrs[r.m.GIAddr()] < now:
		return UnknownAgent
	}
	via, why := a.circuitOf(r, now)
	switch {
	case why != Relayed:
		return why
	case via.giaddr != r.m.GIAddr():
		return ForeignCircuit
	case !slices.Contains(via.servers, r.Src):
		return UnknownServer
	}
	return learn(r, a.table)
}

// circuitOf finds the circuit by option 82, as the agent has sent it and servers send it back
// (RFC 3046, 2.2). via is the circuit as it was then: the configuration may have changed.
func (a *Agent) circuitOf(r *reply, now int64) (via *circuit, why Reason) {
	info := message.Option(&r.m, dhcp.OptRelayAgentInfo)
	var named *circuit
	for it := dhcp.NewSuboptions(info); it.Next(); {
		if c := a.circuits[string(it.Data)]; c != nil && it.Code == message.SubCircuitID {
			named = c
		}
	}
	if named == nil {
		return a.circuitOfRequest(r, info != nil, now)
	}
	r.circuit = a.places[named.Place]
	var err error
	if r.request, err = a.table.Answered(named.Place, r.mac, r.m.XID(), now); err != nil {
		return nil, NoRequest
	}
	via, _ = r.request.Via.(*circuit)
	if via == nil || via.id != named.id || r.circuit == nil {
		return nil, ForeignCircuit
	}
	var room [256]byte
	if remote := via.remoteID(room[:0], r.mac); via.remote != "" && !r.request.HasInfo && !message.HasSub(info, message.SubRemoteID, string(remote)) {
		return nil, ForeignRemote
	}
	return via, Relayed
}

// circuitOfRequest finds the circuit where the client has sent an option 82 itself: ours was
// not added then, or is not sent back by servers that know each sub-option once.
func (a *Agent) circuitOfRequest(r *reply, has bool, now int64) (via *circuit, why Reason) {
	for place, c := range a.places {
		request, err := a.table.Answered(place, r.mac, r.m.XID(), now)
		if err != nil || !request.HasInfo {
			continue
		}
		if via, _ = request.Via.(*circuit); via != nil && via.giaddr == r.m.GIAddr() {
			r.circuit, r.request = c, request
			return via, Relayed
		}
	}
	if has {
		return nil, ForeignCircuit
	}
	return nil, NoInfo
}

// learn finds what an answer means for the client's binding.
func learn(r *reply, table *binding.Table) Reason {
	server := binding.IPv4(message.Address(&r.m, dhcp.OptServerID))
	switch {
	case r.request.Server != 0 && r.request.Server != server && r.m.Type != message.Offer:
		return NotChosen
	case r.m.Type == message.NAK:
		r.change, r.has = table.Refused(r.Place, r.request)
	case r.m.Type == message.ACK && (r.request.Type == message.Request || r.request.Type == message.Discover && r.request.Rapid):
		lease := message.Option(&r.m, 51)
		if len(lease) != 4 || r.m.YIAddr() == 0 {
			return NoLeaseTime
		}
		if b, ok := table.Get(binding.IPv4(r.m.YIAddr())); ok && b.Static {
			if b.MAC != r.mac || b.Place != r.Place {
				return Taken
			}
			return Relayed
		}
		b := binding.Binding{IP: binding.IPv4(r.m.YIAddr()), MAC: r.mac, Place: r.Place, ClientID: r.request.ClientID,
			Server: server}
		b.Until(r.request.At, uint32(lease[0])<<24|uint32(lease[1])<<16|uint32(lease[2])<<8|uint32(lease[3]))
		r.change, r.has = binding.Change{Binding: b}, true
	case r.m.Type == message.ACK && r.request.Type != message.Inform:
		return NoRequest
	}
	return Relayed
}

// passed takes note of an answer that went to the client without us.
func (a *Agent) passed(l *letter, now int64) Reason {
	r := reply{letter: *l}
	if !a.believed(&r) {
		return UnknownServer
	}
	if r.m.Op() != message.BootReply || r.m.Type != message.Offer && r.m.Type != message.ACK && r.m.Type != message.NAK {
		return TypeOfClient
	}
	var err error
	if r.request, err = a.table.Answered(r.Place, r.mac, r.m.XID(), now); err != nil {
		return NoRequest
	}
	if why := learn(&r, a.table); why != Relayed {
		return why
	}
	if r.has && !a.ledger.enter(entry{changes: [2]binding.Change{r.change}, n: 1}) {
		return Busy
	}
	return Relayed
}

const (
	firstWait = 10 * time.Millisecond
	lastWait  = 8 * firstWait
)

// later looks again at an answer that passed: its request is read from another socket, by another
// goroutine, which may not have come to it yet.
func (a *Agent) later(p *port, frame []byte, o wire.Origin, wait time.Duration) {
	if !a.retries.allow() {
		p.reasons[NoRequest].Add(1)
		return
	}
	frame = slices.Clone(frame)
	time.AfterFunc(wait, func() {
		l := letter{origin: o}
		r := a.read(p, frame, &l)
		if r == Relayed {
			r = a.passed(&l, binding.BootTime())
		}
		switch {
		case r == Relayed:
			p.relayed(l.m.Type)
		case r == NoRequest && wait < lastWait:
			a.later(p, frame, o, 2*wait)
		default:
			a.drop(&p.counters, r, p.ifi.Name, &l, nil)
		}
	})
}

// believed says whether a message that passes is from one of the servers: by its identifier,
// since another relay agent may have brought it. A listener without a list believes all.
func (a *Agent) believed(r *reply) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	id, src := a.servers[message.Address(&r.m, dhcp.OptServerID)], a.servers[r.Src]
	return a.snoops && !a.lists || id != nil && id.listed || src != nil && src.listed
}

// deliver makes the frame for the client, and sends it: an ACK by way of the ledger.
func (a *Agent) deliver(r *reply, direct *mail) Reason {
	var room [roomLen]byte
	b, err := message.ToClient(room[:0], &r.m, r.request.Info, r.request.HasInfo)
	switch {
	case errors.Is(err, message.ErrInfo):
		return Malformed
	case err != nil:
		return TooLong
	}
	d := wire.Datagram{EthSrc: r.port.mac, Src: r.address, SrcPort: 67, DstPort: 68, Payload: b}
	d.EthDst, d.Dst = target(&r.m, r.mac)
	p := parcel{port: r.port, to: d.EthDst, room: frames.Get().(*frameRoom)}
	p.frame = d.Append(p.room[:0], r.VLAN, r.VLAN != 0)
	if !r.has {
		direct.add(p)
		return Relayed
	}
	if !a.ledger.enter(entry{changes: [2]binding.Change{r.change}, n: 1, parcel: p}) {
		return Busy
	}
	return Relayed
}

// target is where an answer goes (RFC 2131, 4.1): to all if the client asks for it, or has no
// address yet, and else to its hardware address.
func target(m *dhcp.Message, mac binding.MAC) (eth [6]byte, ip uint32) {
	ip = m.YIAddr()
	if ip == 0 {
		ip = m.CIAddr()
	}
	if m.Flags()&0x8000 != 0 || ip == 0 || m.Type == message.NAK {
		return [6]byte{255, 255, 255, 255, 255, 255}, 0xffffffff
	}
	return mac, ip
}
