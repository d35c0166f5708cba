package policy

import (
	"errors"
	"fmt"
	"time"
)

// Report is what a node has in force, and how it came to it.
type Report struct {
	// Lease is that of the node when it wrote this.
	Lease int64     `json:"lease"`
	Time  time.Time `json:"time"`
	// ID is the version in force, since an instant of the node's clock; 0 is none.
	ID
	Since time.Time `json:"since"`
	// FromDisk says that it was put in force before etcd was reached.
	FromDisk bool `json:"from_disk,omitempty"`
	// Attempt is the latest version that it was to take.
	Attempt *Attempt `json:"attempt,omitempty"`
	// Trial is a version in force that is not kept yet.
	Trial uint64 `json:"trial,omitempty"`
	// Interfaces are those that are guarded, with the hook and what is wrong there.
	Interfaces []Interface `json:"interfaces,omitempty"`
	Counters   Counters    `json:"counters"`
	// Faults are what else is not as it should be.
	Faults []string `json:"faults,omitempty"`
}

// Attempt is what came of taking a version. Without Error it is in force.
type Attempt struct {
	ID
	Error string `json:"error,omitempty"`
}

// Interface is one that is guarded, or should be.
type Interface struct {
	Name  string `json:"name"`
	Hook  string `json:"hook,omitempty"`
	Fault string `json:"fault,omitempty"`
}

// Counters are sums over the rules of the policy in force.
type Counters struct {
	Rules     int    `json:"rules"`
	Accepted  uint64 `json:"accepted"`
	Dropped   uint64 `json:"dropped"`
	Malformed uint64 `json:"malformed"`
}

// What a report holds at most.
const (
	maxInterfaces = 64
	maxFaults     = 32
)

// ParseReport reads the value of a node's report.
func ParseReport(node string, value []byte) (*Report, error) {
	r := &Report{}
	err := strict(value, maxSmall, r)
	if err == nil {
		err = errors.Join(nodeName(node), r.ID.check())
		if a := r.Attempt; a != nil {
			err = errors.Join(err, a.ID.check(), line("error", a.Error, maxCause))
		}
		for _, f := range r.Faults {
			err = errors.Join(err, line("fault", f, maxCause))
		}
		for _, i := range r.Interfaces {
			err = errors.Join(err, line("interface", i.Name, 16), line("hook", i.Hook, 16), line("fault", i.Fault, maxCause))
		}
		if len(r.Faults) > maxFaults || len(r.Interfaces) > maxInterfaces {
			err = errors.Join(err, fmt.Errorf("more than %d faults or %d interfaces", maxFaults, maxInterfaces))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s%.70s: %w", ReportsKey, node, err)
	}
	return r, nil
}

// fit cuts a report to what ParseReport takes.
func (r *Report) fit() {
	if more := len(r.Interfaces) - maxInterfaces; more > 0 {
		r.Faults = append([]string{fmt.Sprintf("%d more interfaces than can be shown here: postern status there shows them", more)}, r.Faults...)
	}
	r.Faults = r.Faults[:min(len(r.Faults), maxFaults)]
	for i := range r.Faults {
		r.Faults[i] = Shown(r.Faults[i], 512)
	}
	r.Interfaces = r.Interfaces[:min(len(r.Interfaces), maxInterfaces)]
	for i := range r.Interfaces {
		r.Interfaces[i].Name = Shown(r.Interfaces[i].Name, 16)
		r.Interfaces[i].Fault = Shown(r.Interfaces[i].Fault, 256)
	}
	if r.Attempt != nil {
		a := *r.Attempt
		a.Error = Shown(a.Error, maxCause)
		r.Attempt = &a
	}
}
