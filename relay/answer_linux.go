package relay

import (
	"errors"

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
	direct.send(a)
}

// answer checks a server's message, and finds whose it is.
func (a *Agent) answer(r *reply, now int64) Reason {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if r.server = a.servers[r.Src]; r.server == nil {
		r.server = &a.strangers
		return UnknownServer
	}
	if why := sound(&r.letter); why != Relayed {
		return why
	}
	switch {
	case r.m.Op() != message.BootReply, r.m.Type != message.Offer && r.m.Type != message.ACK && r.m.Type != message.NAK:
		return TypeOfClient
	case !a.giaddrs[r.m.GIAddr()]:
		return UnknownAgent
	}
	if why := a.circuitOf(r, now); why != Relayed {
		return why
	}
	if r.giaddr != r.m.GIAddr() {
		return ForeignCircuit
	}
	return learn(r, a.table)
}

// circuitOf finds the circuit by option 82, as the agent has sent it and servers send it back
// (RFC 3046, 2.2). A message that went up with the client's own is known by its request.
func (a *Agent) circuitOf(r *reply, now int64) Reason {
	var info message.Info
	if !info.Decode(message.Option(&r.m, dhcp.OptRelayAgentInfo)) {
		if a.config.policy() == message.Keep {
			return a.circuitOfRequest(r, now)
		}
		return NoInfo
	}
	if r.circuit = a.circuits[string(info.Circuit)]; r.circuit == nil {
		if a.config.policy() == message.Keep {
			return a.circuitOfRequest(r, now)
		}
		return ForeignCircuit
	}
	var err error
	if r.request, err = a.table.Answered(r.Place, r.mac, r.m.XID(), now); err != nil {
		return NoRequest
	}
	if r.request.Kept {
		return Relayed
	}
	var room [256]byte
	if string(r.remoteID(room[:0], r.mac)) != string(info.Remote) {
		return ForeignRemote
	}
	return Relayed
}

func (a *Agent) circuitOfRequest(r *reply, now int64) Reason {
	for _, c := range a.circuits {
		if c.giaddr != r.m.GIAddr() {
			continue
		}
		request, err := a.table.Answered(c.Place, r.mac, r.m.XID(), now)
		if err == nil && request.Kept {
			r.circuit, r.request = c, request
			return Relayed
		}
	}
	return NoRequest
}

// learn finds what an answer means for the client's binding.
func learn(r *reply, table *binding.Table) Reason {
	switch {
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
			Server: binding.IPv4(message.Address(&r.m, dhcp.OptServerID))}
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

// believed says whether a message that passes is from one of the servers: by its identifier,
// since another relay agent may have brought it. A listener without a list believes all.
func (a *Agent) believed(r *reply) bool {
	id := message.Address(&r.m, dhcp.OptServerID)
	return len(a.servers) == 0 && a.config.Mode == ModeSnoop || a.servers[id] != nil || a.servers[r.Src] != nil
}

// deliver makes the frame for the client, and sends it: an ACK by way of the ledger.
func (a *Agent) deliver(r *reply, direct *mail) Reason {
	var room [roomLen]byte
	b, err := message.ToClient(room[:0], &r.m, r.request.Kept)
	switch {
	case errors.Is(err, message.ErrInfo):
		return Malformed
	case err != nil:
		return TooLong
	}
	d := wire.Datagram{EthSrc: r.port.mac, Src: r.address, SrcPort: 67, DstPort: 68, Payload: b}
	d.EthDst, d.Dst = target(&r.m, r.mac)
	p := parcel{port: r.port, to: d.EthDst, frame: d.Append(frames.Get().([]byte)[:0], r.VLAN, r.VLAN != 0)}
	if !r.has {
		direct.add(p)
		return Relayed
	}
	if !a.ledger.enter(entry{changes: [2]binding.Change{r.change}, n: 1, parcel: p, agent: a}) {
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
