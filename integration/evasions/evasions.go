// Package evasions is what must not get out, and what must, as frames: each row
// of the ARP, encapsulation and DHCPv4 tables of the project's list of attacks,
// and some beyond it. A forged frame stands beside its honest twin, and both
// beside the policy they are judged by.
//
// It only builds the frames. It knows neither sockets nor engines: whoever sends
// them, in process or over a real device, asks the engine under test.
package evasions

import (
	"slices"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// The tables.
const (
	TableARP           = "ARP"
	TableEncapsulation = "Encapsulation"
	TableDHCP          = "DHCPv4"
	TableBeyond        = "Beyond the tables"
)

// Case is one forged frame and its honest twin.
type Case struct {
	// Table and Row are the attack's place; Name tells the variants of a row apart.
	Table, Row, Name string
	// Policy judges both frames. Cases share it by pointer.
	Policy *Policy
	// Forged must be dropped, Honest must be accepted.
	Forged, Honest Frame
}

// String is table, row and name, as a subtest's name.
func (c *Case) String() string { return c.Table + "/" + c.Row + "/" + c.Name }

// Frame is a frame from its Ethernet header on, and what must become of it.
type Frame struct {
	// Bytes are not to be written to: cases share them.
	Bytes []byte
	// GSOSize is the segment size in bytes that the sender asks for with
	// PACKET_VNET_HDR; 0 for a single frame.
	GSOSize int
	// Rule is the deciding rule, as firewall.Decision.RuleName gives it.
	Rule string
	// Reason is the decision's.
	Reason firewall.Reason
}

// Cases are all cases that a single frame makes, as host h would send them.
func Cases(h Host) []Case {
	p := policies(h)
	return slices.Concat(arpCases(h, p), encapsulationCases(h, p), dhcpCases(h, p), optionCases(h, p), beyondCases(h, p))
}

// by is a frame that a rule decides.
func by(rule string, b []byte) Frame {
	return Frame{Bytes: b, Rule: rule, Reason: firewall.ReasonRule}
}

// byDefault is a frame that no rule of the policy knows.
func byDefault(b []byte) Frame {
	return Frame{Bytes: b, Rule: "default", Reason: firewall.ReasonDefault}
}

// malformed is a frame that is refused before any rule is asked.
func malformed(c filter.Cause, b []byte) Frame {
	return Frame{Bytes: b, Rule: "malformed", Reason: firewall.MalformedReason(c)}
}

// row collects the cases of one row.
type row struct {
	table, name string
	policy      *Policy
	cases       []Case
}

// add puts a forged frame beside its honest twin.
func (r *row) add(name string, forged, honest Frame) {
	r.cases = append(r.cases, Case{r.table, r.name, name, r.policy, forged, honest})
}
