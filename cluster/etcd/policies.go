package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/policy"
)

// Policies is a policy.Store in etcd, and what the command line does there. Each change of what stands
// there already is a transaction on what was seen of it.
type Policies struct {
	*Client
	Node string
	// Failed is told why a server could not be followed.
	Failed func(error)
}

var _ policy.Store = (*Policies)(nil)

// Follow implements policy.Store.
func (p *Policies) Follow(ctx context.Context, fn func(reset bool, keys []policy.Key)) error {
	return p.Watch(ctx, policy.FollowFrom, policy.FollowTo, func(reset bool, _ int64, keys []Key) {
		list := make([]policy.Key, len(keys))
		for i, k := range keys {
			list[i] = policy.Key(k)
		}
		fn(reset, list)
	}, p.Failed)
}

// State is what is there now.
func (p *Policies) State(ctx context.Context) (*policy.State, error) {
	s := policy.NewState()
	keys, err := p.get(ctx, policy.FollowFrom, clientv3.WithRange(p.Prefix+policy.FollowTo))
	if err == nil {
		s.Learn(true, keys)
	}
	return s, err
}

func (p *Policies) get(ctx context.Context, name string, o ...clientv3.OpOption) (list []policy.Key, err error) {
	err = p.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Get(ctx, p.Prefix+name, o...)
		if err != nil {
			return err
		}
		list = nil
		for _, kv := range r.Kvs {
			list = append(list, policy.Key(p.toKey(kv, false)))
		}
		return nil
	})
	return list, err
}

// Version implements policy.Store.
func (p *Policies) Version(ctx context.Context, n uint64) (*policy.Version, error) {
	keys, err := p.get(ctx, policy.Numbered(policy.PoliciesKey, n))
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: %d", policy.ErrNoVersion, n)
	}
	return policy.ParseVersion(n, keys[0].Value)
}

// Versions are the numbers of those that are there, ascending.
func (p *Policies) Versions(ctx context.Context) (list []uint64, err error) {
	keys, err := p.get(ctx, policy.PoliciesKey, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	for _, k := range keys {
		if n, ok := policy.ParseNumbered(policy.PoliciesKey, k.Name); ok {
			list = append(list, n)
		}
	}
	return list, err
}

// Outcomes are those of the versions that were rolled out, and what is wrong with those that cannot be read.
func (p *Policies) Outcomes(ctx context.Context) (map[uint64]*policy.Outcome, []error, error) {
	keys, err := p.get(ctx, policy.OutcomesKey, clientv3.WithPrefix())
	out, bad := map[uint64]*policy.Outcome{}, []error(nil)
	for _, k := range keys {
		n, ok := policy.ParseNumbered(policy.OutcomesKey, k.Name)
		if !ok {
			continue
		}
		o, err := policy.ParseOutcome(n, k.Value)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		out[n] = o
	}
	return out, bad, err
}

// Report implements policy.Store.
func (p *Policies) Report(ctx context.Context, lease int64, r *policy.Report) error {
	return p.Client.report(ctx, p.Node, lease, r)
}

// ReportAnew implements policy.Store.
func (p *Policies) ReportAnew(ctx context.Context, lease int64, r *policy.Report) error {
	anew, err := Dial(p.Config)
	if err != nil {
		return err
	}
	defer anew.Close()
	return anew.report(ctx, p.Node, lease, r)
}

func (c *Client) report(ctx context.Context, node string, lease int64, r *policy.Report) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return c.commit(ctx, []clientv3.Cmp{leaseIs(c.Prefix+policy.NodesKey+node, lease)},
		[]clientv3.Op{clientv3.OpPut(c.Prefix+policy.ReportsKey+node, string(value))}, cluster.ErrNameTaken)
}

func leaseIs(key string, lease int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.LeaseValue(key), "=", clientv3.LeaseID(lease))
}

// commit makes changes if all of what must be so is; else it fails with no.
func (c *Client) commit(ctx context.Context, must []clientv3.Cmp, do []clientv3.Op, no error) error {
	return lost(c.Do(ctx, func(ctx context.Context, cl *clientv3.Client) error {
		r, err := cl.Txn(ctx).If(must...).Then(do...).Commit()
		if err == nil && !r.Succeeded {
			err = &answer{no}
		}
		return err
	}))
}

// answer is an error that other servers would give as well.
type answer struct{ error }

func (a *answer) Is(target error) bool { return target == errAnswer }

func (a *answer) Unwrap() error { return a.error }

// Drive implements policy.Store. The key of one that is under no lease is nobody's.
func (p *Policies) Drive(ctx context.Context, lease int64) error {
	key := p.Prefix + policy.DriverKey
	err := p.commit(ctx, []clientv3.Cmp{leaseIs(key, 0), leaseIs(p.Prefix+policy.NodesKey+p.Node, lease)},
		[]clientv3.Op{clientv3.OpPut(key, p.Node, clientv3.WithLease(clientv3.LeaseID(lease)))}, policy.ErrConflict)
	if errors.Is(err, policy.ErrConflict) {
		return nil // there is one, then
	}
	return err
}

// Unseat implements policy.Store.
func (p *Policies) Unseat(ctx context.Context, driver, revision int64) error {
	key := p.Prefix + policy.DriverKey
	return p.commit(ctx, []clientv3.Cmp{p.seen(revision), leaseIs(key, driver)}, []clientv3.Op{clientv3.OpDelete(key)}, policy.ErrConflict)
}

// Step implements policy.Store.
func (p *Policies) Step(ctx context.Context, lease, revision int64, r *policy.Rollout) error {
	ops, err := p.write(r)
	if err != nil {
		return err
	}
	return p.commit(ctx, []clientv3.Cmp{p.seen(revision), leaseIs(p.Prefix+policy.DriverKey, lease)}, ops, policy.ErrConflict)
}

// seen is the condition that a roll-out has not changed.
func (p *Policies) seen(revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(p.Prefix+policy.RolloutKey), "=", revision)
}

// write is what writes a roll-out, and its outcome when it is over.
func (p *Policies) write(r *policy.Rollout) ([]clientv3.Op, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	ops := []clientv3.Op{clientv3.OpPut(p.Prefix+policy.RolloutKey, string(value))}
	if r.Over() {
		if value, err = json.Marshal(r.Outcome()); err != nil {
			return nil, err
		}
		ops = append(ops, clientv3.OpPut(p.Prefix+policy.Numbered(policy.OutcomesKey, r.Number), string(value)))
	}
	return ops, nil
}

// Remaining implements policy.Store.
func (p *Policies) Remaining(ctx context.Context, lease int64) (left time.Duration, err error) {
	err = p.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.TimeToLive(ctx, clientv3.LeaseID(lease))
		if err == nil {
			left = max(0, time.Duration(r.TTL)*time.Second)
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return 0, nil
	}
	return left, err
}
