package afpacket

import (
	"fmt"
	"syscall"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// Event is one decision worth telling.
type Event struct {
	// Interface is where the frame was classified: where it was going out, or
	// where it was forwarded to.
	Interface string
	// Rule decided: its name, "default" or "malformed"; or "lower layer".
	Rule   string
	Reason firewall.Reason
	// Verdict is what became of the frame. With Audited, it would have been Drop.
	Verdict firewall.Verdict
	Audited bool
	// Frame is the summary of the frame as it was classified, Len its length.
	Frame string
	Len   int
	// Sender is this process.
	Sender filter.Sender
}

// BlockedError is a refusal by the firewall. It is found with errors.As in the
// *net.OpError that WriteTo returns.
type BlockedError struct{ Event }

// Error names interface, rule, reason, frame and sender in one line.
func (e *BlockedError) Error() string {
	why := fmt.Sprintf("rule %q", e.Rule)
	if e.Reason != firewall.ReasonRule {
		why = e.Reason.String()
		if e.Rule != "default" && e.Rule != "malformed" {
			why = fmt.Sprintf("rule %q, %s", e.Rule, why)
		}
	}
	return fmt.Sprintf("blocked on %s by %s: %s (sender %s, pid %d, uid %d)",
		e.Interface, why, e.Frame, e.Sender.Comm, e.Sender.PID, e.Sender.UID)
}

// Unwrap makes errors.Is(err, unix.ENOBUFS) hold: so does the kernel's own
// egress hook tell a packet socket of a refusal (net_xmit_errno).
func (e *BlockedError) Unwrap() error { return syscall.ENOBUFS }
