// Package kernel puts a policy in force in a network namespace, for every process and
// every way of sending, and keeps it there: what is enforced lives in the kernel and
// outlives the process that asked for it. The next process finds it by its pins in a
// bpffs, and adopts it.
//
// Each Apply makes a generation: a directory of pinned maps and programs, complete
// before anything is exchanged. A symbolic link says which generation is to be in
// force; whoever comes next carries on what a killed process began. Each frame is
// judged by the old generation or by the new one, never by none.
//
// It joins what the packages below it do (bpf decides, gate, tc and seal are the
// hooks), and knows nothing of what is in a frame.
package kernel

import (
	"errors"
	"time"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/kernel/bpf"
)

var (
	// ErrNothing is matched where there is no policy in force.
	ErrNothing = errors.New("no policy is in force in this network namespace")
	// ErrNoGuard is matched where a policy guards no interface.
	ErrNoGuard = errors.New("the policy guards no interface")
	// ErrNotPending is matched where nothing waits for a confirmation.
	ErrNotPending = errors.New("nothing waits to be confirmed")
	// ErrNoSet is matched where the policy in force has no such set.
	ErrNoSet = bpf.ErrNoSet
	// ErrBusy is matched where another process reads the events already.
	ErrBusy = errors.New("another process reads the events")
)

// Host is what is enforced in one network namespace. Two values that are equal mean
// the same, in whatever process; the zero value is the calling thread's namespace.
// Methods may be called from several goroutines and processes at once.
type Host struct {
	// Root is a directory in a bpffs; "" means /sys/fs/bpf/postern. Each network
	// namespace has a directory of its own below it.
	Root string
	// NetNS is a descriptor of the network namespace, 0 that of the calling thread. It
	// stays the caller's.
	NetNS int
}

// Source is a policy file: its name, for people, and its text.
type Source struct {
	Name string
	Text []byte
}

// ApplyOptions are what Apply may be told beside the policy.
type ApplyOptions struct {
	// Confirm is how long the policy stays in force unless Confirm is called; 0 is
	// for ever. The kernel itself goes back to the policy before when the time is
	// up: no process has to live for it.
	Confirm time.Duration
}

// Status is what is in force.
type Status struct {
	Enforcing  bool      `json:"enforcing"`
	Policy     string    `json:"policy,omitempty"`
	File       string    `json:"file,omitempty"`
	Generation uint64    `json:"generation,omitempty"`
	Since      time.Time `json:"since,omitzero"`
	// Pending is set while a policy waits to be confirmed.
	Pending    *Pending    `json:"pending,omitempty"`
	Interfaces []Interface `json:"interfaces"`
	Seals      []Seal      `json:"seals,omitempty"`
	// Warnings say what is not as the policy wants it, or cannot be.
	Warnings []string `json:"warnings,omitempty"`
	// LostEvents found no room in the ring buffer.
	LostEvents uint64 `json:"lost_events"`
}

// Pending is a policy that is in force until Deadline.
type Pending struct {
	// Deadline is when the kernel goes back, Before what it goes back to; "" is to none.
	Deadline time.Time `json:"deadline"`
	Before   string    `json:"before"`
	// RolledBack is true once the deadline has passed.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// Interface is a guarded interface, or one that the policy names and that is not there.
type Interface struct {
	Name      string `json:"name"`
	Index     int    `json:"index,omitempty"`
	Direction string `json:"direction"` // egress, ingress
	Senders   string `json:"senders"`   // packet-sockets, all
	Hook      string `json:"hook"`      // gate, tcx, clsact
	Guarded   bool   `json:"guarded"`
	// Policy is the name of the one that judges, where it is not Status.Policy.
	Policy string `json:"policy,omitempty"`
	// Fault says why it is not guarded, or not as it should be.
	Fault string `json:"fault,omitempty"`
	Paths []Path `json:"paths,omitempty"`
}

// Path is a way of sending, and whether the guard of an interface sees it.
type Path struct {
	Name   string `json:"name"`
	Closed bool   `json:"closed"`
	// ByPolicy says that it is open because the policy wants it so.
	ByPolicy bool   `json:"by_policy,omitempty"`
	Why      string `json:"why"`
}

// Seal is a cgroup of the policy's `seal`.
type Seal struct {
	Cgroup string `json:"cgroup"`
	Sealed bool   `json:"sealed"`
	// Open32 says why 32-bit system calls pass it, if they do.
	Open32 string `json:"open_to_32bit_calls,omitempty"`
	Fault  string `json:"fault,omitempty"`
}

// Rule is a rule in force with its counters; the last two have no Rule: the default,
// and malformed frames.
type Rule struct {
	Name    string `json:"name"`
	Line    int    `json:"line,omitempty"`
	Match   string `json:"match,omitempty"`
	Verdict string `json:"verdict"`
	Limit   string `json:"limit,omitempty"`
	Log     bool   `json:"log,omitempty"`
	Audit   bool   `json:"audit,omitempty"`
	Frames  uint64 `json:"frames"`
	Bytes   uint64 `json:"bytes"`
}

// SetInfo is a set in force.
type SetInfo struct {
	Name     string   `json:"name"`
	Types    []string `json:"types"`
	Elements int      `json:"elements"`
}

// Element is an element of a set in force.
type Element struct {
	// Text is one part for each type of the set.
	Text []string `json:"element"`
	// Remaining is until its deadline; 0 if it has none.
	Remaining time.Duration `json:"remaining_ns,omitempty"`
	// Declared says that it stands in the policy file.
	Declared bool `json:"declared,omitempty"`
}

// Diagnosis is what Doctor found.
type Diagnosis struct {
	Checks     []Check     `json:"checks"`
	Interfaces []Interface `json:"interfaces,omitempty"`
}

// Check is one thing that enforcement needs, or would be better with.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	// Remedy is what to do where it is not OK.
	Remedy string `json:"remedy,omitempty"`
}

// Event is a refusal, or what a rule with `log` or `mode: audit` did, as the kernel told it.
type Event struct {
	Time      time.Time        `json:"time"`
	Verdict   firewall.Verdict `json:"-"`
	Reason    firewall.Reason  `json:"-"`
	Rule      string           `json:"rule"` // or "default", "malformed"
	Audited   bool             `json:"audited,omitempty"`
	Interface string           `json:"interface"`
	Index     int              `json:"index"`
	Len       int              `json:"len"`
	Frame     []byte           `json:"-"`
	HasSender bool             `json:"-"`
	Sender    filter.Sender    `json:"-"`
	Cookie    uint64           `json:"-"`
}
