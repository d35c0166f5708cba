package firewall

import (
	"fmt"
	"strings"
	"time"
)

// Does says what the rule does, in the words of a policy file.
func (r *Rule) Does() string {
	switch r.Action {
	case ActionAccept:
		return "accept"
	case ActionForward:
		return "forward to " + r.Iface
	case ActionDuplicate:
		return "duplicate to " + r.Iface
	case ActionMark:
		return fmt.Sprintf("mark %#x", r.Mark)
	case ActionSet:
		names := make([]string, len(r.Set))
		for i, a := range r.Set {
			names[i] = a.Field.Name
		}
		return "set " + strings.Join(names, ", ")
	}
	return "drop"
}

// String gives the limit as policy files have it: "10/s, burst 20, per eth.src".
func (l *Limit) String() string {
	unit := map[int64]string{int64(time.Second): "s", int64(time.Minute): "m", int64(time.Hour): "h", int64(24 * time.Hour): "d"}[l.Interval]
	s := fmt.Sprintf("%d/%s, burst %d", l.Tokens, unit, l.Burst)
	for i, f := range l.Per {
		s += []string{", per ", " and "}[min(i, 1)] + f.Name
	}
	return s
}
