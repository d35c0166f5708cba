package main

import (
	"fmt"
	"time"
)

// counts are how many rules there are.
func (b *bench) counts() []ruleset {
	return pick(b, []ruleset{1, 10, 100, 1000, 10_000}, []ruleset{1, 1000, 10_000})
}

// accepting is what it costs a frame that the last rule accepts.
func accepting(b *bench) (err error) {
	s := b.stage()
	defer s.close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	type made struct {
		contender
		*world
		ruleset
	}
	var all []made
	for _, c := range contenders {
		for _, n := range b.counts() {
			if n > c.most || b.quick && n > 1000 && c.slow {
				continue
			}
			w, err := s.world(func(w *world) error { return c.put(w, n) })
			if err != nil {
				return fmt.Errorf("%s, %d rules: %w", c.name, n, err)
			}
			all = append(all, made{c, w, n})
		}
	}
	for _, how := range []way{byRing, bySendto, byBypass} {
		base, err := s.sender(bare, "bare", how, ruleset(1).accepted())
		if err != nil {
			return err
		}
		for _, m := range all {
			if how == byBypass && m.name != "postern by the gate" && m.name != "nft, a set" {
				continue // tc does not see these, and the others differ as above
			}
			side, err := s.sender(m.world, m.name, how, m.accepted())
			if err != nil {
				return err
			}
			s.versus(base, side, int(m.ruleset))
		}
		err = s.measure(section{
			ID: "accept-" + short[how], Title: "Accepted frames, by " + string(how),
			Text: "One frame, which the last of the rules accepts; all others are refused. Compared with the bare device.",
			Axis: "rules",
		}, b.course())
		if err != nil {
			return err
		}
	}
	return nil
}

// refusing is what it costs a frame that no rule accepts, compared with one that the last rule does. By
// sendto: a ring gives a refused frame back, to be sent again by another system call.
func refusing(b *bench) error {
	s := b.stage()
	defer s.close()
	for _, c := range contenders {
		for _, n := range []ruleset{1, 1000} {
			w, err := s.world(func(w *world) error { return c.put(w, n) })
			if err != nil {
				return fmt.Errorf("%s, %d rules: %w", c.name, n, err)
			}
			accept, err := s.sender(w, c.name+", accepted", bySendto, n.accepted())
			if err != nil {
				return err
			}
			refuse, err := s.sender(w, c.name, bySendto, n.refused())
			if err != nil {
				return err
			}
			s.versus(accept, refuse, int(n))
		}
	}
	return s.measure(section{
		ID: "refuse", Title: "Refused frames, by sendto", Axis: "rules",
		Text: "One frame, which no rule accepts, compared with one that the last rule accepts, by the same guard. Nobody reads postern's events.",
	}, b.course())
}

// elsewhere is what a guard costs a device that is not the guarded one.
func elsewhere(b *bench) error {
	s := b.stage()
	defer s.close()
	bare, err := s.world(unguarded)
	if err != nil {
		return err
	}
	for _, hook := range []string{"tc", "gate"} {
		other, err := s.world(unguarded)
		if err != nil {
			return err
		}
		for _, how := range []way{byRing, bySendto} {
			x, err := bare.open(ruleset(1).accepted(), how)
			if err != nil {
				return err
			}
			send := timed(x.send)
			guarded := false
			after := func(guard bool, change func() error) func(n int) (time.Duration, error) {
				return func(n int) (time.Duration, error) {
					if guard != guarded {
						if err := change(); err != nil {
							return 0, err
						}
						guarded = guard
						if _, err := send(n); err != nil { // the change has cooled the caches
							return 0, err
						}
					}
					return send(n)
				}
			}
			off := &side{name: "bare", run: after(false, other.Flush)}
			on := &side{name: fmt.Sprintf("postern by %s on another device, %s", hook, how),
				run: after(true, func() error { return other.guard(ruleset(1).postern(hook, "sink")) })}
			s.versus(off, on, 0)
		}
	}
	c := b.course()
	c.turns = pick(b, 101, 5)
	return s.measure(section{
		ID: "another", Title: "A guard on another device",
		Text: "The guard is put on and taken off between the turns, so that the hooks' static keys are off where nothing else on the machine has hooks.",
	}, c)
}
