package firewall

import "github.com/postern-fw/postern/firewall/filter"

// Classify decides on a decoded frame. It does not allocate.
func (f *Firewall) Classify(p *filter.Packet) Decision {
	s := f.load()
	if s == nil {
		return Decision{}
	}
	var best int
	var ok bool
	if k := p.Kind(); k != filter.KindOther {
		best, ok = s.plans[k].decide(p, s)
	} else if p.Malformed != 0 && !s.Policy.MalformedMatch {
		return s.malformed(p)
	} else {
		best, ok = s.first(p, s.sets)
	}
	if !ok {
		return s.several(p)
	}
	o := &s.outcomes[best]
	o.counter.count(p.Len())
	return o.decision
}

func (s *state) malformed(p *filter.Packet) (d Decision) {
	s.counters[len(s.counters)-1].count(p.Len())
	d.Reason = MalformedReason(p.Malformed)
	d.audit(s.Policy.Audit)
	return d
}

// several walks the rules that match.
func (s *state) several(p *filter.Packet) Decision {
	d := Decision{effects: &p.Scratch}
	var m matches
	if k := p.Kind(); k != filter.KindOther {
		s.plans[k].find(p, s, &m)
	} else {
		s.find(p, s.sets, &m)
	}
	if m.over {
		return s.linear(p)
	}
	for _, i := range m.rules[:m.n] {
		if s.apply(int(i), p, &d) {
			return d
		}
	}
	s.counters[len(s.Policy.Rules)].count(p.Len())
	d.byDefault(s.Policy)
	return d
}

// linear walks all rules in order: for frames that more rules touch than
// matches holds.
func (s *state) linear(p *filter.Packet) Decision {
	d := Decision{effects: &p.Scratch}
	for i, r := range s.Policy.Rules {
		if (r.Match == nil || filter.Eval(r.Match, p, s.sets)) && s.apply(i, p, &d) {
			return d
		}
	}
	s.counters[len(s.Policy.Rules)].count(p.Len())
	d.byDefault(s.Policy)
	return d
}

// apply carries a matching rule out and reports whether it ended the walk.
func (s *state) apply(i int, p *filter.Packet, d *Decision) bool {
	r := s.Policy.Rules[i]
	if s.limits[i] != nil && !s.limits[i].take(p, true) {
		return false
	}
	s.counters[i].count(p.Len())
	return d.apply(r)
}

// apply adds a rule's action to d and reports whether it ended the walk.
func (d *Decision) apply(r *Rule) bool {
	switch {
	case r.Action == ActionMark:
		d.Mark, d.Marked = r.Mark, true
		return false
	case r.Action.Terminal():
		d.Verdict, d.Reason, d.Rule = Verdict(r.Action), ReasonRule, r
		d.audit(r.Audit)
		return true
	case d.nEffects == MaxEffects:
		d.Verdict, d.Reason, d.Rule = Drop, ReasonTooManyEffects, r
		return true
	}
	d.effects[d.nEffects] = r
	d.nEffects++
	return false
}

func (d *Decision) byDefault(p *Policy) {
	d.Verdict, d.Reason = p.Default, ReasonDefault
	d.audit(p.Audit)
}

// audit lets a drop pass, and says so.
func (d *Decision) audit(on bool) {
	if on && d.Verdict == Drop {
		d.Verdict, d.Audited = Accept, true
	}
}

// Step is one rule of a walk, for people.
type Step struct {
	Rule    *Rule
	Matched bool
	// Over is true if the rule's expression matched but its limit was used up.
	Over bool
}

// Explain is Classify by the reference evaluator, with the walk it took. It
// consumes no tokens and counts nothing.
func (f *Firewall) Explain(p *filter.Packet) (d Decision, steps []Step) {
	s := f.load()
	if s == nil {
		return d, nil
	}
	if p.Malformed != 0 && !s.Policy.MalformedMatch {
		d.Reason = MalformedReason(p.Malformed)
		d.audit(s.Policy.Audit)
		return d, nil
	}
	d.effects = &p.Scratch
	for i, r := range s.Policy.Rules {
		step := Step{Rule: r, Matched: r.Match == nil || filter.Eval(r.Match, p, s.sets)}
		if step.Matched && s.limits[i] != nil && !s.limits[i].take(p, false) {
			step.Matched, step.Over = false, true
		}
		steps = append(steps, step)
		if step.Matched && d.apply(r) {
			return d, steps
		}
	}
	d.byDefault(s.Policy)
	return d, steps
}
