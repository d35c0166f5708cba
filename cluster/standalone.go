package cluster

import (
	"context"
	"sync"
	"time"
)

// Standalone is the Election of a machine that is alone: it holds what it asks for.
type Standalone struct {
	node    string
	changes chan []Change
	mu      sync.Mutex
	n       int64
}

// NewStandalone makes one for a node of that name.
func NewStandalone(node string) *Standalone {
	return &Standalone{node: node, changes: make(chan []Change, 16)}
}

// Renew implements Election: the lease never ends.
func (s *Standalone) Renew(context.Context) (Lease, error) { return Lease{ID: 1}, nil }

// Resign implements Election.
func (s *Standalone) Resign(context.Context) error { return nil }

// Publish implements Election.
func (s *Standalone) Publish(ctx context.Context, l Lease, n Node) error {
	n.Lease = l.ID
	return s.tell(ctx, []Change{{Node: s.node, Record: &n}})
}

// Claim implements Election.
func (s *Standalone) Claim(ctx context.Context, l Lease, claims []Claim) error {
	return s.hold(ctx, l, claims, false)
}

// Release implements Election.
func (s *Standalone) Release(ctx context.Context, l Lease, claims []Claim) error {
	return s.hold(ctx, l, claims, true)
}

func (s *Standalone) hold(ctx context.Context, l Lease, claims []Claim, released bool) error {
	var list []Change
	for _, c := range claims {
		list = append(list, Change{Address: c.Address, Holder: &Holder{
			Node: s.node, Since: time.Now().Round(0), Released: released, Lease: l.ID, Revision: s.next(),
		}})
	}
	return s.tell(ctx, list)
}

func (s *Standalone) next() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return s.n
}

func (s *Standalone) tell(ctx context.Context, list []Change) error {
	select {
	case s.changes <- list:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Follow implements Election.
func (s *Standalone) Follow(ctx context.Context, fn func([]Change)) error {
	fn([]Change{{Reset: true}})
	for {
		select {
		case list := <-s.changes:
			fn(list)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
