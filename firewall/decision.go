package firewall

// Verdict is what becomes of a frame. The zero value drops.
type Verdict uint8

// The terminal verdicts.
const (
	Drop Verdict = iota
	Accept
	Forward
)

// String gives the word used in policy files.
func (v Verdict) String() string { return [...]string{"drop", "accept", "forward"}[v] }

// MaxEffects bounds how many non-terminal rules may act on one frame. A frame
// that exceeds it is dropped (ReasonTooManyEffects).
const MaxEffects = 8

// Decision is what Classify says of a frame. It is small, so that it is returned, and copied, in
// registers: through memory it would take as long as the decision itself.
type Decision struct {
	Outcome
	// Rule decided; nil if the default or the malformed policy did.
	Rule *Rule
	Marking
	// effects are rules, kept in the Packet.
	effects *[MaxEffects]any
}

// Outcome is what becomes of a frame, and why. The zero value drops it.
type Outcome struct {
	// Verdict is the zero value, Drop, unless a rule or the default said
	// otherwise.
	Verdict Verdict
	// Reason says why.
	Reason Reason
	// Audited is true if the verdict would have been Drop but for `mode:
	// audit`; Reason and Rule then say what would have dropped it.
	Audited bool

	nEffects uint8
}

// Marking is the value for skb->mark, Mark, valid if Marked.
type Marking struct {
	Mark   uint32
	Marked bool
}

// Effects is how many rules matched whose Duplicate or Set is to be carried out.
func (d *Decision) Effects() int { return int(d.nEffects) }

// Effect is the i-th of them, in rule order. It is valid until the Packet is classified again.
func (d *Decision) Effect(i int) *Rule { return d.effects[:d.nEffects][i].(*Rule) }

// Plain reports whether there is nothing to do but what the verdict says.
func (d *Decision) Plain() bool {
	return d.nEffects == 0 && !d.Marked && d.Reason != ReasonTooManyEffects
}

// Equal reports whether two decisions say the same of a frame, effects included.
func (d *Decision) Equal(e *Decision) bool {
	if d.Outcome != e.Outcome || d.Rule != e.Rule || d.Marking != e.Marking {
		return false
	}
	for i := range d.Effects() {
		if d.Effect(i) != e.Effect(i) {
			return false
		}
	}
	return true
}

// RuleName is the deciding rule's name, or "default" or "malformed".
func (d *Decision) RuleName() string {
	switch {
	case d.Rule != nil:
		return d.Rule.Name
	case d.Reason.Malformed():
		return "malformed"
	}
	return "default"
}
