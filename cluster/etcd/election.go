package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
)

// Keys are below the prefix.
//
//	nodes/NODE      a cluster.Node, under the node's lease
//	vips/ADDRESS    a cluster.Holder, under the holder's lease
//
// An address is held by whoever wrote its key last, unless that says Released. A claim
// is a transaction on the revision that was seen last, so that one of many succeeds.
const (
	nodesKey = "nodes/"
	vipsKey  = "vips/"
	vipsEnd  = "vips0" // '0' comes after '/'
)

// Election is a cluster.Election in etcd.
type Election struct {
	*Client
	// Node is this node's name, Instance what tells it from another of that name.
	Node, Instance string
	// Lease is how long a lease lasts, Margin how much earlier it is taken to be over.
	Lease, Margin time.Duration
	// Failed is told why a server could not be followed.
	Failed func(error)
	// Now is CLOCK_BOOTTIME.
	Now func() int64

	mu   sync.Mutex
	id   clientv3.LeaseID
	over bool // nothing is renewed any more
}

var _ cluster.Election = (*Election)(nil)

// Current is the lease that the node has, as far as it knows; 0 for none.
func (e *Election) Current() int64 { return int64(e.current()) }

func (e *Election) current() clientv3.LeaseID {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.id
}

// set says whether the lease is wanted still.
func (e *Election) set(id clientv3.LeaseID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.id = id
	return !e.over
}

// errResigned is that of a node that takes part no more.
var errResigned = errors.New("the node has resigned")

// until is the end of a lease of so many seconds that was asked for at sent.
func (e *Election) until(sent, ttl int64) int64 {
	return sent + ttl*int64(time.Second) - int64(e.Margin)
}

// Renew implements cluster.Election.
func (e *Election) Renew(ctx context.Context) (cluster.Lease, error) {
	if id := e.current(); id != 0 {
		l, err := e.keepAlive(ctx, id)
		if !errors.Is(err, cluster.ErrLost) {
			return l, err
		}
	}
	if !e.set(0) {
		return cluster.Lease{}, errResigned
	}
	l, err := e.join(ctx)
	if err == nil && !e.set(clientv3.LeaseID(l.ID)) {
		return cluster.Lease{}, errors.Join(errResigned, e.Resign(ctx))
	}
	return l, err
}

func (e *Election) keepAlive(ctx context.Context, id clientv3.LeaseID) (l cluster.Lease, err error) {
	err = e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		// Before the request: what happens to this process later makes the lease no longer.
		sent := e.Now()
		r, err := c.KeepAliveOnce(ctx, id)
		if err != nil {
			return err
		}
		l = cluster.Lease{ID: int64(id), Until: e.until(sent, r.TTL)}
		return nil
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return l, cluster.ErrLost
	}
	return l, err
}

// join takes a lease and the node's name. An agent that was started anew goes on with the
// lease of the one before: it has the same instance, and there is one process at most.
func (e *Election) join(ctx context.Context) (l cluster.Lease, err error) {
	key := e.Prefix + nodesKey + e.Node
	have, err := e.node(ctx, key)
	if err != nil {
		return l, err
	}
	if have != nil {
		var n cluster.Node
		if err := json.Unmarshal(have.Value, &n); err != nil || n.Instance != e.Instance || have.Lease == 0 {
			return l, fmt.Errorf("%w: %s is the name of %q in %s; give this node another, or wait until the lease of the other is over", cluster.ErrNameTaken, e.Node, n.Instance, key)
		}
		if l, err = e.keepAlive(ctx, clientv3.LeaseID(have.Lease)); !errors.Is(err, cluster.ErrLost) {
			return l, err
		}
	}
	value, err := json.Marshal(cluster.Node{Instance: e.Instance})
	if err != nil {
		return l, err
	}
	if l, err = e.grant(ctx); err != nil {
		return l, err
	}
	err = e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)))).Commit()
		if err == nil && !r.Succeeded {
			err = fmt.Errorf("%w: %w: %s is in use", errAnswer, cluster.ErrNameTaken, e.Node)
		}
		return err // the lease ends by itself
	})
	return l, err
}

// grant takes a lease. The others, who wait for its end, count on its length.
func (e *Election) grant(ctx context.Context) (l cluster.Lease, err error) {
	err = e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		sent, want := e.Now(), int64(e.Lease/time.Second)
		r, err := c.Grant(ctx, want)
		if err == nil && r.TTL != want {
			return fmt.Errorf("%w: etcd grants leases of %d s, not of %v, since its --election-timeout is long: write `lease: %ds`", errAnswer, r.TTL, e.Lease, r.TTL)
		}
		if err == nil {
			l = cluster.Lease{ID: int64(r.ID), Until: e.until(sent, r.TTL)}
		}
		return err
	})
	return l, err
}

func (e *Election) node(ctx context.Context, key string) (kv *mvccpb.KeyValue, err error) {
	err = e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, key)
		if err == nil && len(r.Kvs) > 0 {
			kv = r.Kvs[0]
		}
		return err
	})
	return kv, err
}

// Resign implements cluster.Election. Nothing is renewed afterwards: a node that is there and holds nothing would
// keep the others waiting.
func (e *Election) Resign(ctx context.Context) error {
	e.mu.Lock()
	id := e.id
	e.id, e.over = 0, true
	e.mu.Unlock()
	if id == 0 {
		return nil
	}
	err := e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Revoke(ctx, id)
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return err
}

// Publish implements cluster.Election.
func (e *Election) Publish(ctx context.Context, l cluster.Lease, n cluster.Node) error {
	n.Instance = e.Instance
	value, err := json.Marshal(n)
	if err != nil {
		return err
	}
	return lost(e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		key, id := e.Prefix+nodesKey+e.Node, clientv3.LeaseID(l.ID)
		put := clientv3.OpPut(key, string(value), clientv3.WithLease(id))
		// Another agent may have taken the name if somebody removed the key.
		absent := clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)}, []clientv3.Op{put}, nil)
		r, err := c.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue(key), "=", id)).Then(put).Else(absent).Commit()
		if err == nil && !r.Succeeded && !r.Responses[0].GetResponseTxn().Succeeded {
			err = fmt.Errorf("%w: %w: %s", errAnswer, cluster.ErrNameTaken, e.Node)
		}
		return err
	}))
}

// Claim implements cluster.Election.
func (e *Election) Claim(ctx context.Context, l cluster.Lease, claims []cluster.Claim) error {
	return e.write(ctx, l, claims, cluster.Holder{Node: e.Node, Since: time.Now().Round(0)})
}

// Release implements cluster.Election.
func (e *Election) Release(ctx context.Context, l cluster.Lease, claims []cluster.Claim) error {
	return e.write(ctx, l, claims, cluster.Holder{Node: e.Node, Since: time.Now().Round(0), Released: true})
}

// together is how many addresses one transaction is about; a server takes 128 (--max-txn-ops).
const together = 100

func (e *Election) write(ctx context.Context, l cluster.Lease, claims []cluster.Claim, h cluster.Holder) error {
	value, err := json.Marshal(h)
	if err != nil {
		return err
	}
	for len(claims) > 0 {
		var ops []clientv3.Op
		for _, c := range claims[:min(together, len(claims))] {
			key := e.key(c.Address)
			// Each succeeds or not, whatever the others do.
			ops = append(ops, clientv3.OpTxn(
				[]clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", c.Revision)},
				[]clientv3.Op{clientv3.OpPut(key, string(value), clientv3.WithLease(clientv3.LeaseID(l.ID)))}, nil))
		}
		claims = claims[len(ops):]
		if err := lost(e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
			_, err := c.Txn(ctx).Then(ops...).Commit()
			return err
		})); err != nil {
			return err
		}
	}
	return nil
}

func (e *Election) key(a netip.Addr) string { return e.Prefix + vipsKey + a.String() }

func lost(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("%w: %w", cluster.ErrLost, err)
	}
	return err
}

// Remaining is how long the leases last that addresses are held under, by etcd's own account.
func (e *Election) Remaining(ctx context.Context, leases []int64) map[int64]time.Duration {
	out := map[int64]time.Duration{}
	for _, id := range leases {
		_ = e.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
			r, err := c.TimeToLive(ctx, clientv3.LeaseID(id))
			if err == nil && r.TTL > 0 {
				out[id] = time.Duration(r.TTL) * time.Second
			}
			return err
		})
	}
	return out
}
