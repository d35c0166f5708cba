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
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
)

// Variant is a program for one kind of hook.
type Variant struct {
	// Gate is true for a program on the inspection device of kernel/gate: it lets a
	// frame go by bpf_redirect to the device it came from, by whose name and
	// address it judges.
	Gate bool `json:"gate,omitempty"`
	// AllSenders is `senders: all`; else frames that no packet socket sent pass.
	AllSenders bool `json:"all_senders,omitempty"`
	// PerInterface is true if SetInterface says of each interface which senders are
	// judged there; AllSenders is then for those that it said nothing of.
	PerInterface bool `json:"per_interface,omitempty"`
	// Ingress is true for a program at the way in: what comes in has no sender here,
	// whatever socket it still has from a neighbouring network namespace (veth).
	Ingress bool `json:"ingress,omitempty"`
}

// String is the variant's name, such as "tc_all".
func (v Variant) String() string {
	name := "tc"
	if v.Gate {
		name = "gate"
	}
	if v.AllSenders {
		name += "_all"
	}
	if v.PerInterface {
		name += "_each"
	}
	if v.Ingress {
		name += "_in"
	}
	return name
}

// Options say how a policy is to be enforced, beyond what it says itself.
type Options struct {
	// AllSenders, Gate, PerInterface and Ingress are the first program's Variant.
	AllSenders, Gate, PerInterface, Ingress bool
	// Also are the variants of further programs over the same maps.
	Also []Variant
	// Before is what is in force and goes on: sets, limits and counters of what stays.
	Before *Handover
	// Generation stands in each event.
	Generation uint32
	// Interfaces is how many guarded devices `iface.` fields can tell apart; 0
	// means 1024.
	Interfaces uint32
	// SetEntries is the room in each set that says nothing of its size, in look-up
	// keys: an element takes as many as it has prefixes. 0 means 65536, or twice
	// what the policy declares if that is more.
	SetEntries uint32
	// EventBytes is the room for events, a power of two and a multiple of the page
	// size; 0 means 1 MiB. An event takes about 240.
	EventBytes uint32

	skb skbLayout
	// anonymous is for a kernel that does not tell who sends, but for the socket's owner.
	anonymous bool
	linear    int // how many rules are looked at one after the other; 0 means linearRules
	// scattered reads every frame as those of a TX_RING sender: tests have only frames in one piece.
	scattered bool
}

func (o Options) withDefaults() Options {
	if o.Interfaces == 0 {
		o.Interfaces = 1024
	}
	if o.EventBytes == 0 {
		o.EventBytes = 1 << 20
	}
	if o.skb == (skbLayout{}) {
		o.skb = kernelSKB()
	}
	o.anonymous = o.anonymous || !tellsSender()
	if o.linear == 0 {
		o.linear = linearRules
	}
	return o
}

// variants are those of all programs, the first one first.
func (o Options) variants() []Variant {
	list := []Variant{{o.Gate, o.AllSenders, o.PerInterface, o.Ingress}}
	for _, v := range o.Also {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

func (o Options) eachInterface() bool {
	return slices.ContainsFunc(append(o.Also, Variant{PerInterface: o.PerInterface}), func(v Variant) bool { return v.PerInterface })
}

func (o Options) setEntries(d *firewall.SetDecl) uint32 {
	if d.Size != 0 {
		return max(d.Size, uint32(declaredKeys(d)))
	}
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
	Layout  Layout
	// Instructions of each variant refer to Maps by name.
	Instructions map[Variant]asm.Instructions
	Maps         map[string]*ebpf.MapSpec

	sets     []*setLayout
	contents map[string]contents
	plan     *plan
}

// maxMaps is the kernel's MAX_USED_MAPS.
const maxMaps = 64

// Compile emits the instructions for a policy. Errors match ErrNotSupported or
// ErrTooLarge, and name the rule.
func Compile(p *firewall.Program, o Options) (*Spec, error) {
	o = o.withDefaults()
	plan, err := newPlan(p.Policy, o)
	if err != nil {
		return nil, err
	}
	s := &Spec{Program: p, Options: o, Layout: plan.layout, Instructions: map[Variant]asm.Instructions{}, plan: plan}
	for _, v := range o.variants() {
		of := o
		of.Gate, of.AllSenders, of.PerInterface, of.Ingress = v.Gate, v.AllSenders, v.PerInterface, v.Ingress
		g := newGen(p, of, plan)
		if s.Instructions[v], err = g.compile(); err != nil {
			return nil, err
		}
		maps := g.mapSpecs()
		if len(maps) > maxMaps {
			return nil, fmt.Errorf("policy %s: %d maps, of which %d are sets, more than %d: %w", p.Policy.Name, len(maps), len(g.order), maxMaps, ErrTooLarge)
		}
		if s.Maps == nil {
			s.Maps, s.sets, s.contents = maps, g.order, g.contents
			continue
		}
		// The programs share their maps, and so must mean the same by them.
		if !reflect.DeepEqual(s.contents, g.contents) {
			return nil, fmt.Errorf("policy %s: the programs %v differ in their maps, which is a bug of this package", p.Policy.Name, o.variants())
		}
	}
	return s, nil
}
