// Package cluster decides which node announces a virtual address, and sees to it that no
// other does. The right to announce is a lease; the door in the kernel that lets the
// announcement out has the lease's end as its own, an instant of CLOCK_BOOTTIME that was
// fixed before the request that renewed the lease was sent. A node that is killed,
// frozen or cut off falls silent by itself, before anyone else may speak.
//
// An Election says who holds what; package etcd has one, Standalone is another. The
// Agent holds what the Election and its configuration give it, and gives back
// what it must.
//
// It refuses to know how a lease is kept, what a frame looks like, and how a policy is
// enforced: it knows a door that it opens until an instant and shuts.
package cluster

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

var (
	// ErrNameTaken is matched where another agent is the node of this name.
	ErrNameTaken = errors.New("another agent has this node's name")
	// ErrLost is matched where a lease is over.
	ErrLost = errors.New("the lease is over")
)

// Lease is a node's, and all that it holds is held under it.
type Lease struct {
	// ID is never 0 for a lease that there is.
	ID int64
	// Until is the CLOCK_BOOTTIME instant in nanoseconds before which nobody else can
	// hold what is held under the lease; 0 is for ever.
	Until int64
}

// Alive says whether the lease surely lasts at an instant.
func (l Lease) Alive(now int64) bool { return l.ID != 0 && (l.Until == 0 || now < l.Until) }

// Node is what a node tells the others of itself, as long as its lease lasts.
type Node struct {
	// Instance tells agents of one name apart.
	Instance string `json:"instance"`
	// Addresses are those that it may hold.
	Addresses []netip.Addr `json:"addresses"`
	// Unable are those that it cannot hold now: a check fails, or somebody else uses them.
	Unable []netip.Addr `json:"unable,omitempty"`
	// Drained nodes hold nothing.
	Drained bool  `json:"drained,omitempty"`
	Lease   int64 `json:"-"`
}

// Holder is who holds an address, or did.
type Holder struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
	// Released says that the holder had shut its door before it wrote this: the address
	// is free.
	Released bool `json:"released,omitempty"`

	Lease int64 `json:"-"`
	// Revision is that of the last change, and the condition of the next.
	Revision int64 `json:"-"`
	// Malformed says why it cannot be read. The address is not free.
	Malformed string `json:"-"`
}

// Change is something that became known of the cluster. Exactly one of the following is set.
type Change struct {
	// Reset says that all that was known is forgotten: what is there at Revision follows.
	Reset bool
	// Node is a node's name; Record is nil when the node is gone.
	Node   string
	Record *Node
	// Address is that of Holder, nil when the address is held by nobody.
	Address netip.Addr
	Holder  *Holder
	// Revision is that of the change: revisions grow, unless the election has forgotten what it knew.
	Revision int64
}

// Claim asks for an address; it succeeds if nothing has changed since Revision.
type Claim struct {
	Address  netip.Addr
	Revision int64 // of the Holder that was seen last, 0 if there is none
}

// Election decides who holds an address. Its methods may be called from several goroutines.
type Election interface {
	// Renew makes the node's lease last longer. Where there is none, or it is over, it
	// takes a new one, and all that was held under the old one is lost. It fails with
	// ErrNameTaken where another agent is the node of this name.
	Renew(ctx context.Context) (Lease, error)
	// Publish tells the others of this node.
	Publish(ctx context.Context, l Lease, n Node) error
	// Claim asks for addresses. What came of it is told by Follow.
	Claim(ctx context.Context, l Lease, claims []Claim) error
	// Release gives addresses back, whose doors are shut.
	Release(ctx context.Context, l Lease, claims []Claim) error
	// Resign ends the lease, when all doors are shut.
	Resign(ctx context.Context) error
	// Follow tells what is there, and then each change, until ctx is done. Changes that
	// were made together come together.
	Follow(ctx context.Context, fn func([]Change)) error
}

// Door lets out what speaks for an address until an instant of CLOCK_BOOTTIME, 0 for ever.
// Its methods return when the change is in force.
type Door interface {
	Open(until int64, addresses ...netip.Addr) error
	Shut(addresses ...netip.Addr) error
}

// Voice tells the segment who has an address.
type Voice interface {
	// Probe asks whether somebody else uses an address (RFC 5227), and fails if so.
	Probe(ctx context.Context, address netip.Addr) error
	// Announce begins to announce, and to defend, an address; Silence ends it.
	Announce(address netip.Addr)
	Silence(address netip.Addr)
}

// Carrier has addresses on interfaces.
type Carrier interface {
	Add(address netip.Addr) error
	Delete(address netip.Addr) error
	// Only takes away the addresses, left by an agent before, that are not to stay.
	Only(stay func(netip.Addr) bool) error
}
