package gate

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Install makes the gate what cfg says, whatever it was before, and makes the
// inspection device if need be. It is done in one transaction, in which the chains
// of devices that stay guarded are kept and their rules exchanged: each frame is
// judged by the old rules or by the new ones, none by neither. (A table that is
// deleted and made anew in one transaction does not promise that: nft_do_chain reads
// the generation once a chain, and a frame in between finds the new chain still
// empty and the old one already so. Measured: 2 frames in 1,200 such replacements.) A changed priority takes a second transaction,
// which removes the old chains once the new ones are in force.
//
// What is to judge the frames must be attached to the Inspection device before, or
// all that should be judged is dropped.
//
// It fails with an error that matches ErrForeign, and has changed nothing, where table
// or device of the gate's name are not ours; ErrNotSupported where the kernel lacks
// something; and os.ErrPermission without CAP_NET_ADMIN.
func (g Gate) Install(cfg Config) error {
	if err := errors.Join(g.check(), g.checkConfig(cfg)); err != nil {
		return err
	}
	return g.with(func(c conn) error {
		// Nothing is made where the table is someone else's.
		if _, err := g.read(c); err != nil {
			return err
		}
		inspection, err := g.inspection()
		if err != nil {
			return err
		}
		if err := g.change(c, func(t table) *batch { return g.renew(t, cfg, inspection) }); err != nil {
			return err
		}
		return g.change(c, func(t table) *batch { return g.sweep(t, cfg) })
	})
}

// Remove takes the gate away, table first and then the inspection device. That there is
// none is no error.
func (g Gate) Remove() error {
	if err := g.check(); err != nil {
		return err
	}
	return g.with(func(c conn) error {
		err := g.change(c, func(t table) *batch {
			b := &batch{}
			if t.exists {
				g.deleteTable(b)
			}
			return b
		})
		if err != nil {
			return err
		}
		return g.removeInspection()
	})
}

// with runs fn over a connection and names the gate in its error.
func (g Gate) with(fn func(conn) error) error {
	c, err := dial(g.NetNS)
	if err == nil {
		defer c.Close()
		err = fn(c)
	}
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("gate %s: %w: it takes CAP_NET_ADMIN over the network namespace", g.Name, err)
	case err != nil:
		return fmt.Errorf("gate %s: %w", g.Name, err)
	}
	return nil
}

// change reads the table and commits what plan makes of it, again and again until nothing
// came in between.
func (g Gate) change(c conn, plan func(table) *batch) error {
	for try := 0; ; try++ {
		generation, err := c.generation()
		if err != nil {
			return err
		}
		t, err := g.read(c)
		if err == nil {
			err = c.commit(plan(t), generation)
		} else if c.commit(&batch{}, generation) == errStale {
			err = errStale // what was read in between may have been half of each
		}
		if !errors.Is(err, errStale) {
			return err
		}
		if try == 100 {
			return fmt.Errorf("%w, %d times; who else changes it?", err, try)
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
}

// renew brings all the chains that cfg wants and removes those whose device it does not name.
func (g Gate) renew(t table, cfg Config, inspection int) *batch {
	b := &batch{}
	g.newTable(b)
	kept := map[string]bool{}
	for _, ch := range t.chains {
		i := slices.IndexFunc(cfg.Devices, func(d Device) bool { return slices.Equal(ch.devices, []string{d.Name}) })
		switch {
		case i < 0:
			g.deleteChain(b, ch.name)
		case ch.name != chainName(cfg.Devices[i], cfg.Priority):
			// Of another priority: it guards until sweep.
		case ch.is(cfg.Devices[i], cfg.Priority):
			g.deleteRules(b, ch.name)
			kept[ch.name] = true
		default:
			g.deleteChain(b, ch.name)
		}
	}
	for _, d := range cfg.Devices {
		name := chainName(d, cfg.Priority)
		if !kept[name] {
			g.newChain(b, d, cfg.Priority)
		}
		for _, r := range rules(d, inspection, g.Name) {
			g.newRule(b, name, r)
		}
	}
	return b
}

// sweep removes the chains that guarded wanted devices at another priority. Where another process has
// swept ours meanwhile, its own stay: of two that disagree, one must be left.
func (g Gate) sweep(t table, cfg Config) *batch {
	b := &batch{}
	for _, d := range cfg.Devices {
		if !slices.ContainsFunc(t.chains, func(ch chain) bool { return ch.name == chainName(d, cfg.Priority) }) {
			return b
		}
	}
	for _, ch := range t.chains {
		if !slices.ContainsFunc(cfg.Devices, func(d Device) bool { return ch.name == chainName(d, cfg.Priority) }) {
			g.deleteChain(b, ch.name)
		}
	}
	return b
}

// Status reports what the gate is now, by whomever it was made. It fails with
// ErrForeign as Install does.
func (g Gate) Status() (s State, err error) {
	if err := g.check(); err != nil {
		return State{}, err
	}
	err = g.with(func(c conn) error {
		var t table
		if err := g.change(c, func(now table) *batch { t = now; return &batch{} }); err != nil {
			return err
		}
		inspection, names, err := g.interfaces()
		if err != nil {
			return err
		}
		s = State{Installed: t.exists, Inspection: inspection}
		for _, ch := range t.chains {
			s.Devices = append(s.Devices, g.examine(t, ch, inspection, names))
		}
		return nil
	})
	return s, err
}

// examine compares a chain with what Install would have made.
func (g Gate) examine(t table, ch chain, inspection int, names map[string]int) DeviceState {
	s := DeviceState{Priority: ch.priority}
	if len(ch.devices) == 1 {
		s.Name = ch.devices[0]
	}
	for name, index := range names {
		if s.Name != "" && s.matches(name) && name != g.Name {
			s.Indexes = append(s.Indexes, index)
		}
	}
	slices.Sort(s.Indexes)
	sound := false
	for _, s.Senders = range []Senders{All, PacketSockets} {
		if sound = slices.EqualFunc(ch.rules, rules(s.Device, inspection, g.Name), func(is string, r rule) bool { return is == r.text }); sound {
			break
		}
	}
	switch {
	case t.dormant:
		s.Fault = "the table is dormant: its chains are not hooked"
	case !ch.is(s.Device, ch.priority) || ch.name != chainName(s.Device, ch.priority):
		s.Fault = fmt.Sprintf("chain %s is none of ours", ch.name)
	case inspection == 0:
		s.Fault = fmt.Sprintf("there is no inspection device %s: what should be inspected is dropped", g.Name)
	case !sound:
		s.Fault = fmt.Sprintf("chain %s has the rules %q, not ours for the inspection device %d", ch.name, ch.rules, inspection)
	}
	return s
}
