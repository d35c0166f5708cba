//go:build linux

package control

import (
	"sync"
	"sync/atomic"

	"github.com/postern-fw/postern/kernel"
)

// Hub hands each event to everyone who reads. Nobody holds up another: who does not
// keep pace loses events, and is told how many.
type Hub struct {
	mu      sync.Mutex
	readers map[*Reader]bool
}

// Reader is one of a hub's readers.
type Reader struct {
	// Events is never closed. Nobody must change what comes, for others get it too.
	Events <-chan *Event

	hub    *Hub
	events chan *Event
	lost   atomic.Uint64
}

// room is how many events a reader may be behind.
const room = 1024

// Publish hands an event to the readers.
func (h *Hub) Publish(e *kernel.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) == 0 {
		return
	}
	told := NewEvent(e)
	for r := range h.readers {
		select {
		case r.events <- told:
		default:
			r.lost.Add(1)
		}
	}
}

// Read begins reading; the caller must Close the reader.
func (h *Hub) Read() *Reader {
	events := make(chan *Event, room)
	r := &Reader{Events: events, hub: h, events: events}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers = map[*Reader]bool{}
	}
	h.readers[r] = true
	return r
}

// Lost is how many events found no room since the last call.
func (r *Reader) Lost() uint64 { return r.lost.Swap(0) }

// Close ends reading.
func (r *Reader) Close() {
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	delete(r.hub.readers, r)
}
