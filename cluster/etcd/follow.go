package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/postern-fw/postern/cluster"
)

// Key is a key below the prefix, which it is without.
type Key struct {
	Name  string
	Value []byte
	// Deleted keys have no value; Revision is that of their end.
	Deleted  bool
	Lease    int64
	Revision int64
}

const (
	// asked is how often the server of a watch is asked whether it has told everything.
	asked = time.Second
	// patience is how long it may take to answer: a server that is frozen closes nothing.
	patience = 1500 * time.Millisecond
)

// Watch tells all keys below prefix from one name to before another, and then each change, until ctx is
// done. What was written at one revision comes in one call. reset says that what was told
// before is forgotten. Whatever a server does, it goes on with another; each error is told.
func (c *Client) Watch(ctx context.Context, from, to string, fn func(reset bool, revision int64, keys []Key), failed func(error)) error {
	for n := 0; ; n++ {
		err := c.watch(ctx, n, from, to, fn)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed(err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) watch(ctx context.Context, n int, from, to string, fn func(bool, int64, []Key)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	i := c.order()[0]
	if n > 0 { // the one that failed is not asked again at once
		i = n % len(c.Endpoints)
	}
	at := c.Endpoints[i]
	s, err := c.server(i)
	if err != nil {
		return fmt.Errorf("%s: %w", at, refused(err))
	}
	all, once := context.WithTimeout(ctx, 2*c.Timeout)
	defer once()
	span := clientv3.WithRange(c.Prefix + to)
	r, err := s.Get(all, c.Prefix+from, span)
	if err != nil {
		return fmt.Errorf("%s: %w", at, refused(err))
	}
	var keys []Key
	for _, kv := range r.Kvs {
		keys = append(keys, c.toKey(kv, false))
	}
	fn(true, c.sameCluster(r.Header), keys)
	// A watcher of its own: one that hangs is left alone.
	w := clientv3.NewWatcher(s)
	defer func() { go w.Close() }()
	events := w.Watch(ctx, c.Prefix+from, span, clientv3.WithRev(r.Header.Revision+1))
	return fmt.Errorf("%s: watching: %w", at, c.events(ctx, w, events, fn))
}

// sameCluster is the revision of an answer, 0 if it is another cluster's than those before.
func (c *Client) sameCluster(h *etcdserverpb.ResponseHeader) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.cluster
	c.cluster = h.ClusterId
	if before != 0 && before != h.ClusterId {
		return 0
	}
	return h.Revision
}

// errSilent is that of a server that does not answer.
var errSilent = errors.New("no answer")

func (c *Client) events(ctx context.Context, w clientv3.Watcher, events clientv3.WatchChan, fn func(bool, int64, []Key)) error {
	ask := time.NewTicker(asked)
	defer ask.Stop()
	silent := time.NewTimer(asked + patience)
	defer silent.Stop()
	for {
		select {
		case r, ok := <-events:
			if err := r.Err(); err != nil {
				return err
			}
			if !ok {
				return errors.New("the watch was closed")
			}
			silent.Reset(asked + patience)
			var keys []Key
			for _, e := range r.Events {
				keys = append(keys, c.toKey(e.Kv, e.Type == mvccpb.DELETE))
			}
			if len(keys) > 0 {
				fn(false, r.Header.Revision, keys)
			}
		case <-ask.C:
			// It can hang with the server.
			go func() { _ = w.RequestProgress(ctx) }()
		case <-silent.C:
			return errSilent
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Client) toKey(kv *mvccpb.KeyValue, deleted bool) Key {
	return Key{Name: strings.TrimPrefix(string(kv.Key), c.Prefix), Value: kv.Value, Deleted: deleted, Lease: kv.Lease, Revision: kv.ModRevision}
}

// Follow implements cluster.Election. Failures are told to the log by Failed.
func (e *Election) Follow(ctx context.Context, fn func([]cluster.Change)) error {
	return e.Watch(ctx, nodesKey, vipsEnd, func(reset bool, revision int64, keys []Key) {
		var list []cluster.Change
		if reset {
			list = append(list, cluster.Change{Reset: true, Revision: revision})
		}
		for _, k := range keys {
			if c, ok := change(k); ok {
				list = append(list, c)
			}
		}
		fn(list)
	}, e.Failed)
}

// change reads a key. What is none of ours is left alone.
func change(k Key) (c cluster.Change, ok bool) {
	c.Revision = k.Revision
	if name, is := strings.CutPrefix(k.Name, nodesKey); is {
		if c.Node = name; !cluster.NodeName(name) {
			return c, false
		}
		if k.Deleted {
			return c, true
		}
		n := &cluster.Node{}
		if err := json.Unmarshal(k.Value, n); err != nil || k.Lease == 0 {
			// A node that cannot be read holds nothing new.
			n = &cluster.Node{Drained: true}
		}
		n.Lease, c.Record = k.Lease, n
		return c, true
	}
	name, is := strings.CutPrefix(k.Name, vipsKey)
	if !is {
		return c, false
	}
	a, err := netip.ParseAddr(name)
	if err != nil || a.String() != name {
		return c, false
	}
	c.Address = a
	if k.Deleted {
		return c, true
	}
	h := &cluster.Holder{}
	if err := json.Unmarshal(k.Value, h); err != nil {
		h = &cluster.Holder{Malformed: fmt.Sprintf("%s: %v", k.Name, err)}
	} else if !cluster.NodeName(h.Node) || k.Lease == 0 {
		h = &cluster.Holder{Malformed: k.Name + " names no node, or is under no lease"}
	}
	h.Lease, h.Revision, c.Holder = k.Lease, k.Revision, h
	return c, true
}
