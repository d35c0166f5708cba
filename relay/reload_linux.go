package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/postern-fw/postern/relay/wire"
)

// ErrRestart is matched by a configuration that a relay cannot take over while it runs.
var ErrRestart = errors.New("takes a restart, which loses no binding")

// fixed refuses what cannot change while the relay runs.
func (c *Config) fixed(next *Config) error {
	// The control socket's name may follow from the database's, so that comes first.
	for _, key := range []struct {
		name string
		same bool
	}{{"mode", c.Mode == next.Mode}, {"database", c.Database == next.Database}, {"control", c.Control == next.Control},
		{"set", slices.Equal(c.Set, next.Set)}, {"bpffs", c.BPFFS == next.BPFFS}} {
		if !key.same {
			return fmt.Errorf("another %s %w", key.name, ErrRestart)
		}
	}
	return nil
}

// Reload takes another configuration over while Run runs. Bindings stay, but for static ones that it
// no longer has, and what clients have asked is answered. On an error nothing has changed.
func (a *Agent) Reload(ctx context.Context, c *Config) error {
	policy, err := c.guard()
	if err == nil {
		err = a.config.Load().fixed(c)
	}
	if err != nil {
		return err
	}
	if err := a.replace(ctx, c); err != nil {
		return err
	}
	// What is wrong with a policy Parse has told.
	if err := a.guard.Replace(policy); err != nil {
		return err
	}
	a.refresh(true)
	return nil
}

// replace exchanges the configuration, and the circuits of interfaces that both have.
func (a *Agent) replace(ctx context.Context, c *Config) error {
	a.opening.Lock()
	defer a.opening.Unlock()
	if a.ended {
		return context.Canceled
	}
	next, err := a.next(c)
	if err != nil {
		return err
	}
	opened := map[*port][]wire.Frames{}
	for p, circuits := range next {
		for _, f := range a.frames(circuits) {
			if p.sockets[f] == nil {
				opened[p] = append(opened[p], f)
			}
		}
		if err = a.listen(p, circuits); err != nil {
			break
		}
	}
	if err == nil {
		err = a.ledger.record(ctx, entry{static: c})
	}
	if err != nil {
		for p, list := range opened {
			p.closeOnly(list)
		}
		return err
	}
	a.exchange(c, next)
	for p, circuits := range next {
		for _, f := range opened[p] {
			a.hear(p, f, p.sockets[f])
		}
		p.closeOnly(without(p.sockets, a.frames(circuits)))
	}
	return nil
}

// next makes the circuits of the interfaces that are served, and stay.
func (a *Agent) next(c *Config) (map[*port]map[uint16]*circuit, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	out, ids := map[*port]map[uint16]*circuit{}, map[string]*circuit{}
	for name, p := range a.ports {
		if p.gone || len(c.vlans(name)) == 0 {
			continue
		}
		circuits, err := c.circuits(p)
		if err != nil {
			return nil, err
		}
		for _, c := range circuits {
			if err := c.claim(ids); err != nil {
				return nil, err
			}
		}
		out[p] = circuits
	}
	return out, nil
}

// exchange is one step to those who read answers; of each interface, to who reads requests.
func (a *Agent) exchange(c *Config, next map[*port]map[uint16]*circuit) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.configure(c)
	for _, p := range a.ports {
		if circuits, stays := next[p]; stays {
			a.serve(p, circuits)
		} else if !p.gone {
			a.forget(p)
		}
	}
	a.index()
}

// without are the kinds of sockets that are not among those.
func without(sockets map[wire.Frames]*wire.Socket, keep []wire.Frames) (list []wire.Frames) {
	for f := range sockets {
		if !slices.Contains(keep, f) {
			list = append(list, f)
		}
	}
	return list
}

// closeOnly closes some of an interface's sockets, where they are open.
func (p *port) closeOnly(list []wire.Frames) {
	for _, f := range list {
		if s := p.sockets[f]; s != nil {
			_ = s.Close()
			delete(p.sockets, f)
		}
	}
}
