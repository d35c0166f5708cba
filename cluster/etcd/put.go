package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster/policy"
)

// rollout is the one that is there, nil if there is none.
func (p *Policies) rollout(ctx context.Context) (r *policy.Rollout, revision int64, err error) {
	keys, err := p.get(ctx, policy.RolloutKey)
	if err != nil || len(keys) == 0 {
		return nil, 0, err
	}
	r, err = policy.ParseRollout(keys[0].Value)
	if err != nil {
		err = fmt.Errorf("%w; nodes go on with what they have; remove the key (etcdctl del %s%s) and put a policy", err, p.Prefix, policy.RolloutKey)
	}
	return r, keys[0].Revision, err
}

// Put writes a version, which gets its number, and begins to roll it out. It fails with ErrConflict while another one
// is being rolled out, and where somebody else put one at the same time.
func (p *Policies) Put(ctx context.Context, v policy.Version, first string) (*policy.Version, error) {
	was, revision, err := p.rollout(ctx)
	if err != nil {
		return nil, err
	}
	if was == nil {
		if was, err = p.restored(ctx); err != nil {
			return nil, err
		}
	}
	if was.Number > 0 && !was.Over() {
		return nil, fmt.Errorf("%w: version %d is being rolled out (stage %s, since %s): wait for it, or call it off by postern cluster rollback",
			policy.ErrConflict, was.Number, was.Stage, was.Since.Local().Format(time.DateTime))
	}
	v.Number = was.Number + 1
	value, err := v.Encode()
	if err != nil {
		return nil, err
	}
	ops, err := p.write(&policy.Rollout{ID: v.ID(), Good: was.Good, Stage: policy.Put, First: first, Since: v.Time})
	if err != nil {
		return nil, err
	}
	key := p.Prefix + policy.Numbered(policy.PoliciesKey, v.Number)
	ops = append(ops, clientv3.OpPut(key, string(value)))
	if v.Number > policy.Kept {
		oldest := min(v.Number-policy.Kept, was.Good.Number)
		for _, under := range []string{policy.PoliciesKey, policy.OutcomesKey} {
			ops = append(ops, clientv3.OpDelete(p.Prefix+under, clientv3.WithRange(p.Prefix+policy.Numbered(under, oldest))))
		}
	}
	absent := clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	err = p.commit(ctx, []clientv3.Cmp{p.seen(revision), absent}, ops, policy.ErrConflict)
	if errors.Is(err, policy.ErrConflict) {
		// A server that did not answer in time may have written it.
		if keys, e := p.get(ctx, policy.Numbered(policy.PoliciesKey, v.Number)); e == nil && len(keys) == 1 && bytes.Equal(keys[0].Value, value) {
			return &v, nil
		}
		err = fmt.Errorf("%w: look at it (postern cluster history), and put yours again", policy.ErrConflict)
	}
	return &v, err
}

// restored is a roll-out whose key was removed: its version and the last good one are found by what is there.
func (p *Policies) restored(ctx context.Context) (*policy.Rollout, error) {
	r := &policy.Rollout{Stage: policy.Failed}
	list, err := p.Versions(ctx)
	if err != nil || len(list) == 0 {
		return r, err
	}
	r.Number = list[len(list)-1]
	outcomes, _, err := p.Outcomes(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		if o := outcomes[n]; o != nil && o.Done {
			v, err := p.Version(ctx, n)
			if err != nil {
				return nil, err
			}
			r.Good = v.ID()
		}
	}
	return r, nil
}

// Abort calls off the roll-out that is under way, and returns it; nil if there is none.
func (p *Policies) Abort(ctx context.Context, by string) (*policy.Rollout, error) {
	r, revision, err := p.rollout(ctx)
	if err != nil || r == nil || r.Over() {
		return nil, err
	}
	r = r.Abort(by, time.Now().UTC().Round(0))
	ops, err := p.write(r)
	if err != nil {
		return nil, err
	}
	return r, p.commit(ctx, []clientv3.Cmp{p.seen(revision)}, ops, policy.ErrConflict)
}

// AddElements puts elements into sets of all nodes, until a time to live is over; 0 is for ever.
func (p *Policies) AddElements(ctx context.Context, ttl time.Duration, by string, list ...policy.Element) error {
	return p.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		var under []clientv3.OpOption
		if ttl > 0 {
			grant, err := c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
			if err != nil {
				return err
			}
			under = append(under, clientv3.WithLease(grant.ID))
		}
		for len(list) > 0 {
			n := min(len(list), together)
			var ops []clientv3.Op
			for _, e := range list[:n] {
				ops = append(ops, clientv3.OpPut(p.Prefix+e.Key(), by, under...))
			}
			if _, err := c.Txn(ctx).Then(ops...).Commit(); err != nil {
				return err
			}
			list = list[n:]
		}
		return nil
	})
}

// DeleteElements takes elements out, and returns how many were there.
func (p *Policies) DeleteElements(ctx context.Context, list ...policy.Element) (deleted int, err error) {
	for _, e := range list {
		err = p.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
			r, err := c.Delete(ctx, p.Prefix+e.Key())
			if err == nil {
				deleted += int(r.Deleted)
			}
			return err
		})
		if err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// Forget removes the report of a node that is not there any more.
func (p *Policies) Forget(ctx context.Context, node string) (was bool, err error) {
	absent := clientv3.Compare(clientv3.CreateRevision(p.Prefix+policy.NodesKey+node), "=", 0)
	err = p.Do(ctx, func(ctx context.Context, c *clientv3.Client) error {
		r, err := c.Txn(ctx).If(absent).Then(clientv3.OpDelete(p.Prefix + policy.ReportsKey + node)).Commit()
		switch {
		case err != nil:
			return err
		case !r.Succeeded:
			return &answer{fmt.Errorf("%s: %w", node, policy.ErrPresent)}
		}
		was = r.Responses[0].GetResponseDeleteRange().Deleted > 0
		return nil
	})
	return was, err
}
