// Package bpf compiles a firewall.Program to eBPF instructions for a tcx or clsact
// hook, and loads them. What they decide is what firewall.Classify decides, frame
// by frame and rule by rule; the tests hold one against the other.
//
// The instructions are emitted by Go, specialised to the fields that the policy
// reads: there is no C, and no compiler but this one. The frame's bytes are read
// by bpf_skb_load_bytes alone, since those of a TX_RING sender lie in page
// fragments, and nothing that the sender claims about them is believed.
//
// It refuses to weaken a policy: what it cannot decide as Classify does, it does
// not compile, and says which rule asked for it. It does not know to which
// device a program is attached, nor by which hook.
package bpf

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
)

// Options say how a policy is to be enforced, beyond what it says itself.
type Options struct {
	// AllSenders is `senders: all`; else frames that no packet socket sent pass.
	AllSenders bool
	// Gate is true for a program on the inspection device of kernel/gate: it lets a
	// frame go by bpf_redirect to the device it came from, by whose name and
	// address it judges.
	Gate bool
	// Interfaces is how many guarded devices `iface.` fields can tell apart; 0
	// means 1024.
	Interfaces uint32
	// SetEntries is the room in each set, in look-up keys: an element takes as
	// many as it has prefixes. 0 means 65536, or twice what the policy declares if
	// that is more.
	SetEntries uint32

	// EventBytes is the room for events, a power of two and a multiple of the page
	// size; 0 means 1 MiB. An event takes about 240.
	EventBytes uint32

	linear int // how many rules are looked at one after the other; 0 means linearRules
}

func (o Options) withDefaults() Options {
	if o.Interfaces == 0 {
		o.Interfaces = 1024
	}
	if o.EventBytes == 0 {
		o.EventBytes = 1 << 20
	}
	if o.linear == 0 {
		o.linear = linearRules
	}
	return o
}

func (o Options) setEntries(d *firewall.SetDecl) uint32 {
	if o.SetEntries != 0 {
		return o.SetEntries
	}
	return max(1<<16, uint32(2*declaredKeys(d)))
}

// ifindexOffset is where struct __sk_buff has the guarded device's index.
func (o Options) ifindexOffset() int {
	if o.Gate {
		return skbIngressIfindex
	}
	return skbIfindex
}

// Spec is a compiled policy, not loaded yet.
type Spec struct {
	Program *firewall.Program
	Options Options
	// Instructions refer to Maps by name.
	Instructions asm.Instructions
	Maps         map[string]*ebpf.MapSpec

	sets     []*setLayout
	contents map[string]contents
}

// maxMaps is the kernel's MAX_USED_MAPS.
const maxMaps = 64

// Compile emits the instructions for a policy. Errors match ErrNotSupported or
// ErrTooLarge, and name the rule.
func Compile(p *firewall.Program, o Options) (*Spec, error) {
	g := newGen(p, o.withDefaults())
	ins, err := g.compile()
	if err != nil {
		return nil, err
	}
	maps := g.mapSpecs()
	if len(maps) > maxMaps {
		return nil, fmt.Errorf("policy %s: %d maps, of which %d are sets, more than %d: %w", p.Policy.Name, len(maps), len(g.order), maxMaps, ErrTooLarge)
	}
	return &Spec{Program: p, Options: g.opt, Instructions: ins, Maps: maps, sets: g.order, contents: g.contents}, nil
}
