//go:build linux

package control

import (
	"encoding/hex"
	"time"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/kernel"
)

// Event is a kernel.Event as it is told to people and programs.
type Event struct {
	Time      time.Time `json:"time"`
	Verdict   string    `json:"verdict"`
	Rule      string    `json:"rule"`
	Reason    string    `json:"reason"`
	Audited   bool      `json:"audited,omitempty"`
	Interface string    `json:"interface"`
	Index     int       `json:"index"`
	// Len is the frame's length, Frame its first bytes in hexadecimal.
	Len     int    `json:"len"`
	Frame   string `json:"frame"`
	Summary string `json:"summary"`
	// Sender is nil where the frame has no socket, such as a forwarded one.
	Sender *Sender `json:"sender"`
}

// Sender is who sent the frame.
type Sender struct {
	PID    uint32 `json:"pid"`
	Comm   string `json:"comm"`
	UID    uint32 `json:"uid"`
	Cgroup string `json:"cgroup,omitempty"`
	Cookie uint64 `json:"cookie"`
}

// NewEvent makes an Event that holds nothing of e.
func NewEvent(e *kernel.Event) *Event {
	out := &Event{
		Time: e.Time, Verdict: e.Verdict.String(), Rule: e.Rule, Reason: e.Reason.String(), Audited: e.Audited,
		Interface: e.Interface, Index: e.Index, Len: e.Len, Frame: hex.EncodeToString(e.Frame), Summary: summary(e),
	}
	if e.HasSender {
		out.Sender = &Sender{e.Sender.PID, e.Sender.Comm, e.Sender.UID, e.Sender.Cgroup, e.Cookie}
	}
	return out
}

func summary(e *kernel.Event) string {
	var p filter.Packet
	p.Decode(e.Frame, &filter.Meta{WireLen: e.Len})
	if e.Len > len(e.Frame) {
		// What is missing makes no frame malformed; the kernel saw all of it.
		p.Malformed = 0
	}
	return p.Summary()
}
