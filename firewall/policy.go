package firewall

import (
	"path"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/postern-fw/postern/firewall/filter"
)

// Policy is a policy file, parsed and type-checked. It is immutable.
type Policy struct {
	Name  string
	Guard []Guard
	Sets  []*SetDecl
	Rules []*Rule
	// Default decides what no rule did: Drop or Accept.
	Default Verdict
	// MalformedMatch is `malformed: match`; else malformed frames are dropped.
	MalformedMatch bool
	// Audit is `mode: audit` on the whole policy.
	Audit bool
	// Seal is the cgroups v2 below which sockets are forbidden what no egress hook
	// sees: absolute paths of directories, or paths below the cgroup2 mount.
	Seal  []string
	Tests []Test
}

// Direction is the way of a frame, as seen from the machine.
type Direction uint8

// The directions.
const (
	Egress Direction = iota
	Ingress
)

// String gives the word used in policy files.
func (d Direction) String() string { return [...]string{"egress", "ingress"}[d] }

// Guard says which interfaces are guarded.
type Guard struct {
	// Interfaces are names and globs (path.Match).
	Interfaces []string
	Direction  Direction
	// AllSenders is `senders: all`; else packet sockets alone. What comes in has no
	// sender here: with Ingress it is true.
	AllSenders bool
	Hook       Hook
}

// Names says whether the guard names an interface.
func (g *Guard) Names(iface string) bool {
	return slices.ContainsFunc(g.Interfaces, func(pattern string) bool {
		ok, err := path.Match(pattern, iface)
		return ok && err == nil
	})
}

// Hook is where in the kernel frames are judged.
type Hook uint8

// The hooks. Auto leaves the choice to the engine.
const (
	HookAuto Hook = iota
	HookTC
	HookGate
)

var hooks = []string{HookAuto: "auto", HookTC: "tc", HookGate: "gate"}

// String gives the word used in policy files.
func (h Hook) String() string { return hooks[h] }

// Action is what a rule does.
type Action uint8

// The actions. The first three are terminal.
const (
	ActionDrop Action = iota
	ActionAccept
	ActionForward
	ActionDuplicate
	ActionMark
	ActionSet
)

// Terminal reports whether the action ends the walk.
func (a Action) Terminal() bool { return a <= ActionForward }

// Rule is one rule of a policy.
type Rule struct {
	Name   string
	Match  filter.Expr // nil matches every frame
	Limit  *Limit      // nil: none
	Action Action
	// Iface is where ActionForward and ActionDuplicate send the frame.
	Iface string
	// Mark is ActionMark's value for skb->mark.
	Mark uint32
	// Set is what ActionSet writes, in the order of the file.
	Set []Assignment
	// Log asks for an event when the rule matches.
	Log bool
	// Audit is `mode: audit`, the policy's own included.
	Audit bool
	// Line is where the rule stands in its file, counted from 1.
	Line int

	node *yaml.Node // for diagnostics
}

// Assignment is `field: value` under `set`.
type Assignment struct {
	Field *filter.Field
	Value filter.Value
}

// Limit is a token bucket, one per key, or one for all frames where Per is
// empty.
type Limit struct {
	// Tokens per Interval (nanoseconds) flow in, to at most Burst.
	Tokens   uint64
	Interval int64
	Burst    uint64
	Per      []*filter.Field
}

// SetDecl declares a named set.
type SetDecl struct {
	Name  string
	Types []filter.Type
	Bits  []int // width of a number, 0 for 64
	// Size is how many elements there is to be room for in the kernel, each prefix of a
	// range counted; 0 leaves it to the engine.
	Size     uint32
	Elements []Element

	tuples int // look-up entries of Elements
}

// Element is one element of a set: a range for each part of the tuple.
type Element struct {
	Parts []filter.Range
	// Deadline is the CLOCK_BOOTTIME instant in nanoseconds after which the
	// element is gone; 0 means never.
	Deadline int64
	// Text is how it was written.
	Text string
}

// Test is one entry of `tests`.
type Test struct {
	Name  string
	Frame []byte
	// Expect and Rule are what must come out; ExpectIface is where an expected
	// `forward` leads. Rule "" is not compared.
	Expect      Verdict
	ExpectIface string
	Rule        string
	// Iface and IfaceMAC are the guarded interface the frame leaves by, as
	// `iface.name` and `iface.mac` give it; IfaceMAC is valid if HasIfaceMAC.
	Iface       string
	IfaceMAC    [6]byte
	HasIfaceMAC bool
	// Mark is `iface.mark`, with which the frame comes.
	Mark uint32
	// Ingress is `iface.ingress`: the frame comes in.
	Ingress bool
	Line    int
}
