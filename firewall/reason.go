package firewall

import "github.com/postern-fw/postern/firewall/filter"

// Reason says why a Decision is what it is. The values below 0x100 are the
// firewall's own; all others are a malformed frame's filter.Cause.
type Reason uint16

// The firewall's own reasons. The zero value goes with the zero Decision.
const (
	ReasonNoPolicy         Reason = iota // no program in force
	ReasonRule                           // a rule decided
	ReasonDefault                        // no rule did
	ReasonTooManyEffects                 // more than MaxEffects rules acted
	ReasonRecursion                      // forwarded more often than the bound
	ReasonUnsendable                     // the result could not be transmitted as asked
	ReasonUnknownInterface               // the policy asks for name or address of an interface that is not known (yet)
	ReasonUnsteady                       // the sender can change bytes, or have them changed, after they were judged
	ReasonTooManyLookups                 // more combinations of a frame's DHCP options than are looked at
)

// MalformedReason is the reason of a frame dropped for c.
func MalformedReason(c filter.Cause) Reason { return Reason(c) }

// Malformed reports whether the frame was refused for being malformed.
func (r Reason) Malformed() bool { return r >= 0x100 }

// String gives the reason in words.
func (r Reason) String() string {
	if r.Malformed() {
		return "malformed: " + filter.Cause(r).String()
	}
	return [...]string{"no policy in force", "rule", "default", "too many effects", "forwarded too often",
		"cannot be sent as the policy asks", "interface not known to the policy yet",
		"would not leave as it was judged",
		"more combinations of DHCP options than are looked at"}[r]
}
