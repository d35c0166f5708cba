package cluster

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// steps is what is to be done now.
type steps struct {
	open, shut    []*address
	claim, giving []Claim
}

// reconcile makes what is done be what should be, and returns when to look again at the latest.
func (a *Agent) reconcile() time.Duration {
	now := a.Now()
	if a.broken != nil && now >= a.retry {
		a.broken = nil
	}
	a.settle(now)
	var s steps
	if !a.lease.Alive(now) {
		for _, x := range a.addresses {
			if x.open {
				a.Count.Lapsed.Add(1)
				s.shut = append(s.shut, x)
			}
		}
		if len(s.shut) > 0 {
			a.Log.Warn("the lease may be over: silent until it is renewed", "addresses", len(s.shut))
		}
		a.shut(s.shut)
		return time.Second
	}
	a.publish(now)
	if a.followed {
		a.plan(now, &s)
		a.carryOut(&s)
	}
	next := time.Second
	if a.lease.Until != 0 {
		next = min(next, time.Duration(a.lease.Until-now)+time.Millisecond)
	}
	return next
}

// settle takes off the interfaces what an agent before left there, as soon as it is known what is
// held, or when its lease must be over.
func (a *Agent) settle(now int64) {
	known := a.followed && a.lease.Alive(now)
	if a.settled || a.Carrier == nil || !known && now-a.began < int64(a.Config.Lease) {
		return
	}
	a.settled = true
	err := a.Carrier.Only(func(x netip.Addr) bool { return a.byAddr[x] != nil && a.mine(a.byAddr[x]) && known })
	if err != nil {
		a.Log.Error("taking addresses off their interfaces: " + err.Error())
	}
}

// plan compares what is with what should be.
func (a *Agent) plan(now int64, s *steps) {
	holders := map[netip.Addr]*Holder{}
	for _, x := range a.addresses {
		holders[x.Addr] = x.holder
	}
	own := a.nodes[a.Config.Node]
	at := spread(a.Config.Addresses, a.nodes, holders)
	for _, x := range a.addresses {
		want := own != nil && own.Lease == a.lease.ID && at[x.Addr] == a.Config.Node && a.unable(x, now) == ""
		// Nobody gives away what he may keep before he is known to the others.
		keep := want || a.unable(x, now) == "" && at[x.Addr] == ""
		switch mine := a.mine(x); {
		// What was asked to be given back may be another's at any moment, whatever is wanted now.
		case mine && (!keep || x.giving != 0):
			if x.open {
				s.shut = append(s.shut, x)
			}
			if x.giving == 0 || now-x.giving > again {
				x.giving, x.gives = now, x.holder.Revision
				s.giving = append(s.giving, Claim{x.Addr, x.holder.Revision})
			}
		case mine && want && !x.open && now >= x.wait:
			if x.known || a.probed(x) {
				s.open = append(s.open, x)
			}
		case !mine && x.open:
			s.shut = append(s.shut, x)
		case !mine && want && a.free(x, now):
			x.claiming = now
			c := Claim{Address: x.Addr}
			if x.holder != nil {
				c.Revision = x.holder.Revision
			}
			s.claim = append(s.claim, c)
		}
	}
}

// free says whether an address can be claimed.
func (a *Agent) free(x *address, now int64) bool {
	if h := x.holder; h != nil && (!h.Released || h.Malformed != "") {
		return false
	}
	return now >= x.wait && (x.claiming == 0 || now-x.claiming > again)
}

// carryOut shuts before it gives, and opens before it speaks.
func (a *Agent) carryOut(s *steps) {
	l := a.lease
	if a.shut(s.shut) && len(s.giving) > 0 {
		a.Count.Given.Add(uint64(len(s.giving)))
		a.ask("giving addresses back", s.giving, func(ctx context.Context) error { return a.Election.Release(ctx, l, s.giving) })
	}
	if len(s.claim) > 0 {
		a.ask("claiming addresses", s.claim, func(ctx context.Context) error { return a.Election.Claim(ctx, l, s.claim) })
	}
	if len(s.open) == 0 {
		return
	}
	if err := a.Door.Open(l.Until, addrs(s.open)...); err != nil {
		a.break_(err)
		return
	}
	for _, x := range s.open {
		if a.Carrier != nil {
			if err := a.Carrier.Add(x.Addr); err != nil {
				a.Log.Error("putting an address on its interface: "+err.Error(), "address", x.Addr)
			}
		}
		x.open, x.until, x.since, x.refused = true, l.Until, time.Now().Round(0), ""
		a.Voice.Announce(x.Addr)
	}
	a.Count.Opened.Add(uint64(len(s.open)))
	a.Log.Info("holding addresses", "count", len(s.open), "first", s.open[0].Addr)
}

func addrs(list []*address) (out []netip.Addr) {
	for _, x := range list {
		out = append(out, x.Addr)
	}
	return out
}

// shut reports whether the doors are shut for sure.
func (a *Agent) shut(list []*address) bool {
	if len(list) == 0 {
		return true
	}
	for _, x := range list {
		a.Voice.Silence(x.Addr)
	}
	if err := a.Door.Shut(addrs(list)...); err != nil {
		a.break_(err)
		// A door that cannot be shut does so by itself.
		now := a.Now()
		if slices.ContainsFunc(list, func(x *address) bool { return x.until == 0 || now < x.until }) {
			return false
		}
	}
	for _, x := range list {
		x.open = false
		if a.Carrier != nil {
			if err := a.Carrier.Delete(x.Addr); err != nil {
				a.Log.Error("taking an address off its interface: "+err.Error(), "address", x.Addr)
			}
		}
	}
	a.Log.Info("silent", "count", len(list), "first", list[0].Addr)
	return true
}

// ask has the election do something; Follow tells what came of it.
func (a *Agent) ask(what string, claims []Claim, fn func(context.Context) error) {
	go func() {
		err := fn(a.jobs)
		if err == nil || a.jobs.Err() != nil {
			return
		}
		a.Log.Warn(what + ": " + err.Error())
		a.post(func() {
			soon := a.Now() - again + int64(200*time.Millisecond)
			for _, c := range claims {
				x := a.byAddr[c.Address]
				x.claiming, x.giving = min(x.claiming, soon), min(x.giving, soon)
			}
		})
	}()
}

// probed begins to probe for an address that nobody in the cluster had, and says whether that is
// done and nobody answered.
func (a *Agent) probed(x *address) bool {
	if !*a.Config.Announce.Probe {
		return true
	}
	if x.probing != nil {
		return false
	}
	ctx, cancel := context.WithCancel(a.jobs)
	x.probing = cancel
	revision := x.holder.Revision
	go func() {
		err := a.Voice.Probe(ctx, x.Addr)
		cancel()
		a.post(func() {
			x.probing = nil
			switch {
			case x.holder == nil || x.holder.Revision != revision:
			case err != nil:
				a.Count.Conflicts.Add(1)
				x.refused, x.refusedUntil = err.Error(), a.Now()+forgiven
				a.Log.Error("an address is not announced, since it is in use: "+err.Error(), "address", x.Addr)
			default:
				x.known = true
			}
		})
	}()
	return false
}
