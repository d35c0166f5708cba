package bpf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// Layout says where a loaded policy keeps what the next one goes on with. Whoever
// opens its maps needs it.
type Layout struct {
	// Seed is what the hashes of limits are drawn from: a sender must not know it.
	Seed []byte `json:"seed"`
	// Counters and Buckets are how many slots there are, SetSlots how many sets.
	Counters uint32    `json:"counters"`
	Buckets  uint32    `json:"buckets"`
	SetSlots uint32    `json:"set_slots"`
	MaskSize uint32    `json:"mask_size"`
	Events   uint32    `json:"events"`
	Sets     []SetSlot `json:"sets"`
	Variants []Variant `json:"variants"`
}

// SetSlot is where a set's elements are. Sets with equal slots in two layouts that
// follow each other share a map.
type SetSlot struct {
	Name  string        `json:"name"`
	Types []filter.Type `json:"types"`
	Bits  []int         `json:"bits"`
	Slot  int           `json:"slot"`
	Size  uint32        `json:"size"`
	// Digest is of the declared elements.
	Digest []byte `json:"digest"`
}

func (s SetSlot) decl() *firewall.SetDecl {
	return &firewall.SetDecl{Name: s.Name, Types: s.Types, Bits: s.Bits}
}

// Handover is what a policy in force leaves to the next one. Engine.Handover makes it.
type Handover struct {
	Layout Layout
	// Counters are slots by rule name, Limits ranges of buckets.
	Counters map[string]uint32
	Limits   map[string]BucketRange
	// Changed are sets of which declared elements were taken out.
	Changed map[string]bool

	engine *Engine
}

// BucketRange is where a limit's buckets are.
type BucketRange struct {
	Limit    string // its text
	First, N uint32
}

// plan is the layout of a policy that takes the place of another, and what has to be
// done to get there. Slots of rules that stay are kept, others are taken from those
// that nobody uses.
type plan struct {
	layout Layout
	// counters and buckets are by rule.
	counters []uint32
	buckets  []BucketRange
	// share are the maps to be taken over as they are.
	share map[string]bool
	// freshCounters and freshBuckets are to be cleared before use.
	freshCounters []uint32
	freshBuckets  []BucketRange
	// kept are limits whose buckets move to a new map with their slots.
	kept []BucketRange
}

func newPlan(p *firewall.Policy, o Options) (*plan, error) {
	before := o.Before
	pl := &plan{share: map[string]bool{}}
	pl.layout = Layout{Events: o.EventBytes, Variants: o.variants()}
	if before != nil {
		pl.layout.Seed = before.Layout.Seed
		pl.share[mapAgain] = true
		pl.share[mapEvents] = before.Layout.Events == o.EventBytes
	} else {
		before = &Handover{}
		pl.layout.Seed = make([]byte, 32)
		for i := 0; i < 32; i += 8 {
			binary.NativeEndian.PutUint64(pl.layout.Seed[i:], rand.Uint64())
		}
	}
	pl.planCounters(p, before)
	pl.planLimits(p, before)
	pl.planSets(p, o, before)
	return pl, nil
}

// The first slots in mapCounters; rules have the others.
const (
	countDefault = iota
	countMalformed
	countLost
	countRules
)

func (pl *plan) planCounters(p *firewall.Policy, before *Handover) {
	used, next := map[uint32]bool{}, uint32(countRules)
	for _, slot := range before.Counters {
		used[slot] = true
	}
	pl.counters = make([]uint32, len(p.Rules))
	for i, r := range p.Rules {
		slot, stays := before.Counters[r.Name]
		if !stays {
			for used[next] {
				next++
			}
			slot, next = next, next+1
			pl.freshCounters = append(pl.freshCounters, slot)
		}
		pl.counters[i] = slot
	}
	most := slices.Max(append(pl.counters, next))
	if pl.layout.Counters = before.Layout.Counters; most >= pl.layout.Counters {
		n := uint32(len(p.Rules))
		pl.layout.Counters = max(most+1, n+n/4+64)
	} else {
		pl.share[mapCounters] = true
	}
}

// limitText tells limits apart.
func limitText(l *firewall.Limit) string {
	var per []string
	for _, f := range l.Per {
		per = append(per, f.Name)
	}
	return fmt.Sprintf("%d %d %d %s", l.Tokens, l.Interval, l.Burst, strings.Join(per, " "))
}

func (pl *plan) planLimits(p *firewall.Policy, before *Handover) {
	keyed, each := 0, uint32(limitKeys)
	for _, r := range p.Rules {
		if r.Limit != nil && len(r.Limit.Per) > 0 {
			keyed++
		}
	}
	for each > limitKeysFew && int(each)*keyed > limitKeysShared {
		each /= 2
	}
	pl.buckets = make([]BucketRange, len(p.Rules))
	var used []BucketRange
	for _, b := range before.Limits {
		used = append(used, b)
	}
	slices.SortFunc(used, func(a, b BucketRange) int { return int(a.First) - int(b.First) })
	for i, r := range p.Rules {
		if r.Limit == nil {
			continue
		}
		want := BucketRange{Limit: limitText(r.Limit), N: 1}
		if len(r.Limit.Per) > 0 {
			want.N = each
		}
		if was, ok := before.Limits[r.Name]; ok && was.Limit == want.Limit && was.N == want.N {
			pl.buckets[i], pl.kept = was, append(pl.kept, was)
			continue
		}
		at := 0
		for at < len(used) && used[at].First-want.First < want.N {
			want.First = used[at].First + used[at].N
			at++
		}
		used = slices.Insert(used, at, want)
		pl.buckets[i], pl.freshBuckets = want, append(pl.freshBuckets, want)
	}
	most := uint32(0)
	for _, b := range pl.buckets {
		most = max(most, b.First+b.N)
	}
	switch {
	case most == 0:
	case most > before.Layout.Buckets:
		pl.layout.Buckets = most
	default:
		pl.layout.Buckets, pl.share[mapBuckets] = before.Layout.Buckets, true
	}
}

func (pl *plan) planSets(p *firewall.Policy, o Options, before *Handover) {
	used, next := map[int]bool{}, 0
	was := map[string]SetSlot{}
	for _, s := range before.Layout.Sets {
		used[s.Slot], was[s.Name] = true, s
	}
	size := uint32(32)
	for _, d := range p.Sets {
		s := SetSlot{Name: d.Name, Types: d.Types, Bits: d.Bits, Size: o.setEntries(d), Digest: digest(d)}
		size = max(size, uint32(layoutSet(d, 0).size))
		old, stays := was[d.Name]
		if stays && slices.Equal(old.Types, s.Types) && slices.Equal(old.Bits, s.Bits) && old.Size == s.Size &&
			bytes.Equal(old.Digest, s.Digest) && !before.Changed[d.Name] {
			s.Slot = old.Slot
			pl.share[setMapName(s.Slot)], pl.share[rangesMapName(s.Slot)] = true, true
		} else {
			for used[next] {
				next++
			}
			s.Slot, used[next] = next, true
		}
		pl.layout.Sets = append(pl.layout.Sets, s)
	}
	slots := uint32(0)
	for _, s := range pl.layout.Sets {
		slots = max(slots, uint32(s.Slot)+1)
	}
	switch was := before.Layout; {
	case slots == 0:
	case slots <= was.SetSlots && size <= was.MaskSize:
		pl.layout.SetSlots, pl.layout.MaskSize = was.SetSlots, was.MaskSize
		pl.share[mapMasks], pl.share[mapSets] = true, true
	default:
		pl.layout.SetSlots, pl.layout.MaskSize = max(16, 2*uint32(len(p.Sets)), slots), size
	}
}

// digest is of what a file says of a set's elements.
func digest(d *firewall.SetDecl) []byte {
	h, l := sha256.New(), layoutSet(d, 0)
	for _, e := range d.Elements {
		keys, _ := l.expand(e)
		h.Write([]byte(l.id(keys)))
	}
	return h.Sum(nil)[:16]
}
