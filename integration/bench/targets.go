package main

import (
	"fmt"
	"strings"
)

// target is what the design promises. It is told whether it was met, never asserted.
type target struct {
	text  string
	value func(*report) (float64, bool) // and whether it was measured
	limit float64
	least bool // the limit is the least, not the most
}

// ratio is the one of a result.
func ratio(id, name string, x int) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		res, ok := r.find(id, name, x)
		return res.Ratio.Median, ok
	}
}

// between is how many times longer one result takes than another.
func between(id, longer, shorter string, x int) func(*report) (float64, bool) {
	return func(r *report) (float64, bool) {
		a, ok1 := r.find(id, longer, x)
		b, ok2 := r.find(id, shorter, x)
		return a.Cost.Median / b.Cost.Median, ok1 && ok2
	}
}

// find looks for the result whose name begins so.
func (r *report) find(id, name string, x int) (result, bool) {
	for _, s := range r.Sections {
		if s.ID != id {
			continue
		}
		for _, res := range s.Results {
			if strings.HasPrefix(res.Name, name) && res.X == x {
				return res, true
			}
		}
	}
	return result{}, false
}

var targets = []target{
	{"accepted by tc, 10,000 rules, sendto: of bare", ratio("accept-sendto", "postern by tc", 10_000), 1.25, false},
	{"accepted by tc, 10,000 rules, TX_RING: of bare", ratio("accept-ring", "postern by tc", 10_000), 1.25, false},
	{"accepted by tc, 1,000 rules: times as fast as nft with a rule each, sendto", between("accept-sendto", "nft, a rule each", "postern by tc", 1000), 50, true},
	{"the same, TX_RING", between("accept-ring", "nft, a rule each", "postern by tc", 1000), 50, true},
	{"refused by tc, 1,000 rules: of accepted", ratio("refuse", "postern by tc", 1000), 1, false},
	{"refused by the gate, 1,000 rules: of accepted", ratio("refuse", "postern by the gate", 1000), 1, false},
	{"a guard on another device, sendto: of bare", ratio("another", "postern by tc on another device, sendto", 0), 1.02, false},
	{"in process, 10,000 rules of one shape: of 10", ratio("judge-rules", "1 shape", 10_000), 1.5, false},
	{"Decode and Classify, ARP: times as fast as gopacket's NewPacket", ratio("judge-arp", "gopacket, NewPacket", 0), 20, true},
	{"Decode and Classify, DHCP: times as fast as insomniacslk/dhcp's FromBytes", ratio("judge-dhcp", "insomniacslk/dhcp", 0), 20, true},
	{"a guarded single send: of mdlayher/packet's WriteTo", ratio("send", "postern, WriteTo, guarded", 0), 0.5, false},
	{"a guarded batch: of C's sendmmsg", ratio("send-batch", "postern, WriteBatch", 0), 1.1, false},
	{"a guarded ring: of C's PACKET_TX_RING", ratio("send-batch", "postern, Ring", 0), 1.1, false},
	{"10,000 rules put in force by tc, in seconds", func(r *report) (float64, bool) {
		res, ok := r.find("control", "put 10,000 rules in force by tc", 10_000)
		return res.Cost.Median / 1e9, ok
	}, 1, false},
}

func (r *report) targets(b *strings.Builder) {
	b.WriteString("\n## What is promised, and what was measured\n\n| | promised | measured | |\n|---|---|---|---|\n")
	for _, t := range targets {
		v, ok := t.value(r)
		if !ok {
			continue
		}
		word, met := "at most", v <= t.limit
		if t.least {
			word, met = "at least", v >= t.limit
		}
		verdict := "met"
		if !met {
			verdict = "**missed**"
		}
		fmt.Fprintf(b, "| %s | %s %g | %.2f | %s |\n", t.text, word, t.limit, v, verdict)
	}
}
