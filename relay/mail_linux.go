package relay

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/relay/wire"
)

// frames is memory for frames to clients.
var frames = sync.Pool{New: func() any { return new(frameRoom) }}

type frameRoom [wire.HeadersLen + roomLen]byte

// parcel is a frame for a client.
type parcel struct {
	port  *port
	to    [6]byte
	room  *frameRoom
	frame []byte
}

// mail is frames that are sent together.
type mail struct{ list []parcel }

func (m *mail) add(p parcel) { m.list = append(m.list, p) }

const (
	// together is how many frames are sent without a pause. When the disk has made many ACKs
	// wait, queues on their way, and sockets where many of them end, have no room for all at once.
	together = 64
	pause    = time.Millisecond
)

// send sends what goes out by one interface in a row with one system call.
func (m *mail) send() {
	var messages [32]afpacket.Message
	sent := 0
	for rest := m.list; len(rest) > 0; {
		if sent >= together {
			time.Sleep(pause)
			sent = 0
		}
		n := 1
		for n < len(rest) && n < len(messages) && rest[n].port == rest[0].port {
			n++
		}
		for i := range n {
			messages[i] = afpacket.Message{Bytes: rest[i].frame, Addr: &afpacket.Addr{HardwareAddr: net.HardwareAddr(rest[i].to[:])}}
		}
		rest[0].port.write(messages[:n])
		sent += n
		rest = rest[n:]
	}
	for _, p := range m.list {
		frames.Put(p.room)
	}
	m.list = m.list[:0]
}

// write counts what could not be sent, which the client will ask for again.
func (p *port) write(list []afpacket.Message) {
	sent, err := p.out.WriteBatch(list)
	if err == nil || sent == len(list) {
		return
	}
	for i := range list {
		var blocked *afpacket.BlockedError
		switch {
		case errors.As(list[i].Err, &blocked):
			p.reasons[Refused].Add(1)
		case list[i].Err != nil:
			p.reasons[NotSent].Add(1)
		}
	}
}
