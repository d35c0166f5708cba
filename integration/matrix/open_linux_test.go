package matrix

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/evasions"
)

// open makes a sender of a socket of its own, in the network namespace of the calling thread.
func (p path) open(d device) (*sender, error) {
	switch {
	case p.call == callXDP:
		return openXDP(p, d)
	case p.call == callWrite && p.claim == truth:
		return p.openByType(d)
	}
	fd, err := p.socket()
	if err != nil {
		return nil, err
	}
	s, err := p.over(fd, d)
	if err != nil {
		unix.Close(fd)
	}
	return s, err
}

// openXDP makes a sender of an AF_XDP socket.
func openXDP(p path, d device) (*sender, error) {
	x, err := newXSK(d.index)
	if err != nil {
		return nil, err
	}
	return &sender{path: p, close: x.close, send: func(batch [][]byte) ([]bool, error) {
		for _, f := range batch {
			if err := x.send(f); err != nil {
				return nil, err
			}
		}
		return make([]bool, len(batch)), nil
	}}, nil
}

// openByType opens a socket for each type that frames have. One that is bound again
// waits for an RCU grace period each time (packet_do_bind).
func (p path) openByType(d device) (*sender, error) {
	byType := map[uint16]*sender{}
	all := &sender{path: p, close: func() {
		var list []*sender
		for _, s := range byType {
			list = append(list, s)
		}
		closeAll(list)
	}}
	for _, c := range evasions.Cases(evasions.NewHost()) {
		for _, f := range []evasions.Frame{c.Forged, c.Honest} {
			q := p
			q.claim = int(binary.BigEndian.Uint16(f.Bytes[12:]))
			if byType[uint16(q.claim)] != nil {
				continue
			}
			s, err := q.open(d)
			if err != nil {
				all.close()
				return nil, err
			}
			byType[uint16(q.claim)] = s
		}
	}
	all.send = func(batch [][]byte) (unsendable []bool, err error) {
		for i, f := range batch {
			not, err := byType[binary.BigEndian.Uint16(f[12:])].send(batch[i : i+1])
			if err != nil {
				return nil, err
			}
			unsendable = append(unsendable, not...)
		}
		return unsendable, nil
	}
	return all, nil
}

// closeAll closes side by side: each waits for an RCU grace period (packet_release).
func closeAll(senders []*sender) {
	var wg sync.WaitGroup
	for _, s := range senders {
		if s != nil {
			wg.Go(s.close)
		}
	}
	wg.Wait()
}
