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

// Decision is the outcome of Classify: a value, so that it allocates nothing.
// Rule and effects point into the immutable Program.
type Decision struct {
	// Verdict is the zero value, Drop, unless a rule or the default said
	// otherwise.
	Verdict Verdict
	// Reason says why.
	Reason Reason
	// Rule decided; nil if the default or the malformed policy did.
	Rule *Rule
	// Mark is the value for skb->mark; valid if Marked.
	Mark   uint32
	Marked bool
	// Audited is true if the verdict would have been Drop but for `mode:
	// audit`; Reason and Rule then say what would have dropped it.
	Audited bool

	effects  [MaxEffects]*Rule
	nEffects uint8
}

// Effects are the matched rules whose Duplicate or Set is to be carried out, in
// rule order. The slice is valid as long as d.
func (d *Decision) Effects() []*Rule { return d.effects[:d.nEffects] }

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
