// Package firewall turns a policy and a frame into a verdict. It holds the
// policy file, the engine-neutral Program made from it, live sets, limits and
// counters. It knows no socket, no interface and no kernel: engines know it.
package firewall

import "github.com/postern-fw/postern/firewall/filter"

// Firewall is a program in force, with its live sets, limits and counters. It
// is safe for use by many goroutines. The zero value, and nil, drop everything.
type Firewall struct{}

// Parse reads a policy file; name appears in its diagnostics. The error is a
// Diagnostics. warnings come with a sound policy.
func Parse(name string, src []byte) (p *Policy, warnings Diagnostics, err error) {
	panic("not written yet")
}

// New puts p in force.
func New(p *Policy) (*Firewall, error) { panic("not written yet") }

// Replace puts p in force in one atomic step. Sets, limits and counters of what
// stays keep their state. On an error the policy in force is untouched.
func (f *Firewall) Replace(p *Policy) error { panic("not written yet") }

// Policy is the policy in force, nil if there is none.
func (f *Firewall) Policy() *Policy { panic("not written yet") }

// Classify decides on a decoded frame. It does not allocate.
func (f *Firewall) Classify(p *filter.Packet) Decision { panic("not written yet") }

// Step is one rule of a walk, for people.
type Step struct {
	Rule    *Rule
	Matched bool
	// Over is true if the rule's expression matched but its limit was used up.
	Over bool
}

// Explain is Classify by the reference evaluator, with the walk it took. It
// consumes no tokens and counts nothing.
func (f *Firewall) Explain(p *filter.Packet) (Decision, []Step) { panic("not written yet") }

// Counter is how often a rule matched.
type Counter struct {
	Rule          *Rule // nil: the default and malformed frames
	Frames, Bytes uint64
}

// Counters of every rule in order, then the default's and the malformed
// frames'.
func (f *Firewall) Counters() []Counter { panic("not written yet") }
