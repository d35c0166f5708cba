package cluster

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"
)

// Status is what an agent knows.
type Status struct {
	Node string `json:"node"`
	// Lease is what remains of the lease; 0 if it may be over, absent if it never ends.
	Lease     *time.Duration  `json:"lease_ns,omitempty"`
	Drained   bool            `json:"drained"`
	Fault     string          `json:"fault,omitempty"`
	Nodes     []NodeStatus    `json:"nodes"`
	Addresses []AddressStatus `json:"addresses"`
}

// NodeStatus is a node.
type NodeStatus struct {
	Node    string `json:"node"`
	Drained bool   `json:"drained,omitempty"`
	Holds   int    `json:"holds"`
	Unable  int    `json:"unable,omitempty"`
}

// AddressStatus is an address.
type AddressStatus struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"`
	// Node holds it, Since when; "" is nobody.
	Node  string    `json:"node"`
	Since time.Time `json:"since,omitzero"`
	// Remaining is of the holder's lease, if it is known.
	Remaining time.Duration `json:"remaining_ns,omitempty"`
	// Open says that this node lets it be announced now.
	Open bool `json:"open"`
	// Unable says why this node cannot hold it.
	Unable string `json:"unable,omitempty"`
	Fault  string `json:"fault,omitempty"`
	Lease  int64  `json:"-"`
}

// Status tells what the agent knows now.
func (a *Agent) Status(ctx context.Context) (*Status, error) {
	return ask(ctx, a, a.status)
}

func ask[T any](ctx context.Context, a *Agent, fn func() T) (out T, err error) {
	done := make(chan T, 1)
	select {
	case a.do <- func() { done <- fn() }:
	case <-a.jobs.Done():
		return out, context.Canceled
	case <-ctx.Done():
		return out, ctx.Err()
	}
	select {
	case out = <-done:
		return out, nil
	case <-a.jobs.Done():
		return out, context.Canceled
	case <-ctx.Done():
		return out, ctx.Err()
	}
}

func (a *Agent) status() *Status {
	now := a.Now()
	s := &Status{Node: a.Config.Node, Drained: a.drained, Nodes: []NodeStatus{}}
	if a.lease.ID == 0 || a.lease.Until != 0 {
		left := max(0, time.Duration(a.lease.Until-now))
		s.Lease = &left
	}
	if err := cmp.Or(a.broken, a.distrust); err != nil {
		s.Fault = err.Error()
	}
	holds := map[string]int{}
	for _, x := range a.addresses {
		out := AddressStatus{Address: x.Addr, Interface: x.Interface, Open: x.open && a.lease.Alive(now), Unable: a.unable(x, now)}
		if h := x.holder; h != nil {
			out.Fault, out.Lease = h.Malformed, h.Lease
			if !h.Released && h.Malformed == "" {
				out.Node, out.Since = h.Node, h.Since
				holds[h.Node]++
			}
			if a.mine(x) && s.Lease != nil {
				out.Remaining = *s.Lease
			}
		}
		s.Addresses = append(s.Addresses, out)
	}
	for name, n := range a.nodes {
		s.Nodes = append(s.Nodes, NodeStatus{name, n.Drained, holds[name], len(n.Unable)})
	}
	slices.SortFunc(s.Nodes, func(a, b NodeStatus) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

// Drain gives all addresses to others, and takes none until Undrain. It returns when they
// are given back.
func (a *Agent) Drain(ctx context.Context) error {
	idle, err := ask(ctx, a, func() bool { a.drained = true; return false })
	for !idle && err == nil {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		idle, err = ask(ctx, a, func() bool { return a.idle() || !a.drained })
	}
	return err
}

// Undrain ends what Drain began.
func (a *Agent) Undrain(ctx context.Context) error {
	_, err := ask(ctx, a, func() bool { a.drained = false; return true })
	return err
}

// Conflict tells of another machine that announces an address that is held.
func (a *Agent) Conflict(address netip.Addr, by string) {
	a.Count.Conflicts.Add(1)
	a.Log.Error("another machine announces an address of ours: it is defended", "address", address, "by", by)
}
