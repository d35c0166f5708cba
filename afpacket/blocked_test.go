package afpacket

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

func TestBlockedError(t *testing.T) {
	s := filter.Sender{Comm: "dhcpd", PID: 7, UID: 101}
	for _, tt := range []struct {
		rule   string
		reason firewall.Reason
		want   string
	}{
		{"no-rogue", firewall.ReasonRule, `rule "no-rogue"`},
		{"default", firewall.ReasonDefault, "default"},
		{"default", firewall.ReasonNoPolicy, "no policy in force"},
		{"away", firewall.ReasonRecursion, `rule "away", forwarded too often`},
		{"malformed", firewall.MalformedReason(filter.CauseDHCPFragment), "malformed: first fragment of a DHCP datagram"},
	} {
		e := &BlockedError{Event{Interface: "eth0", Rule: tt.rule, Reason: tt.reason, Frame: "ARP", Sender: s}}
		want := "blocked on eth0 by " + tt.want + ": ARP (sender dhcpd, pid 7, uid 101)"
		if e.Error() != want {
			t.Errorf("%q, want %q", e, want)
		}
		var blocked *BlockedError
		if err := error(&net.OpError{Op: "write", Err: e}); !errors.Is(err, syscall.ENOBUFS) || !errors.As(err, &blocked) || blocked != e {
			t.Errorf("%v is not ENOBUFS with a refusal in it", err)
		}
	}
}
