package bpf

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// Limits are token buckets as in firewall: a table of fixed size, so that no flood
// of invented keys makes it grow. A key that finds no slot is over its limit.
const (
	limitKeys       = 1 << 16 // slots of a keyed limit
	limitKeysShared = 1 << 22 // what all of a policy share, if they are many
	limitKeysFew    = 1 << 10 // what one has in any case
	limitWindow     = 16      // slots a key may live in
)

// mapLimits has of each limit: uint32 each of its first slot, their number less 1,
// which fields it is keyed by, and 0; then uint64 each of what a token costs, and
// what a full bucket holds, in nanoseconds. mapBuckets has the slots: a spin lock, the
// key, and the instant at which the bucket is full again (CLOCK_BOOTTIME).
const (
	mapLimits  = "limits"
	limitBytes = 32
	mapBuckets = "buckets"

	bucketKey, bucketFull, bucketBytes = 8, 16, 24
)

const (
	fnTake     = "take"
	fnEachSlot = fnEach + "slot"
)

// layoutLimits gives each limit its number and its slots.
func (g *gen) layoutLimits() {
	rules, kinds := g.prog.Policy.Rules, map[string]uint32{}
	t := contents{keySize: 4, valSize: limitBytes}
	for i, r := range rules {
		if r.Limit == nil {
			continue
		}
		var names []string
		for _, f := range r.Limit.Per {
			names = append(names, f.Name)
		}
		k := strings.Join(names, " ")
		if _, ok := kinds[k]; !ok {
			kinds[k] = uint32(len(g.limitKinds))
			g.limitKinds = append(g.limitKinds, r.Limit.Per)
			g.where = fmt.Sprintf("the limit of rule %q", r.Name)
			g.needs(limitKeyName(len(g.limitKinds)-1), g.limitKey(len(g.limitKinds)-1))
		}
		g.limitOf[i] = len(g.limits)
		t.keys = binary.NativeEndian.AppendUint32(t.keys, uint32(len(g.limits)))
		for _, v := range []uint32{g.plan.buckets[i].First, g.plan.buckets[i].N - 1, kinds[k], 0} {
			t.vals = binary.NativeEndian.AppendUint32(t.vals, v)
		}
		cost := max(1, r.Limit.Interval/int64(r.Limit.Tokens))
		t.vals = binary.NativeEndian.AppendUint64(t.vals, uint64(cost))
		t.vals = binary.NativeEndian.AppendUint64(t.vals, r.Limit.Burst*uint64(cost))
		g.limits = append(g.limits, r.Limit)
	}
	if len(g.limits) == 0 {
		return
	}
	g.needs(fnTake, g.take)
	g.contents[mapLimits] = t
	g.maps[mapLimits] = &ebpf.MapSpec{Name: mapLimits, Type: ebpf.Array, KeySize: 4, ValueSize: limitBytes, MaxEntries: uint32(len(g.limits))}
	g.maps[mapBuckets] = &ebpf.MapSpec{Name: mapBuckets, Type: ebpf.Array, KeySize: 4, ValueSize: bucketBytes, MaxEntries: g.plan.layout.Buckets, Key: u32, Value: bucketType()}
}

// bucketType tells the kernel where the spin lock is.
func bucketType() btf.Type {
	lock := &btf.Struct{Name: "bpf_spin_lock", Size: 4, Members: []btf.Member{{Name: "val", Type: u32}}}
	u64 := &btf.Int{Name: "unsigned long", Size: 8}
	return &btf.Struct{Name: "postern_bucket", Size: bucketBytes, Members: []btf.Member{
		{Name: "lock", Type: lock}, {Name: "key", Type: u64, Offset: 8 * bucketKey}, {Name: "full", Type: u64, Offset: 8 * bucketFull}}}
}

// take emits the function that takes a token of limit R3's bucket for the frame; it
// returns 0 if there is none.
func (g *gen) take() *code {
	c := newCode(fnTake)
	none, keyed, mine, slot := c.label(), c.label(), c.label(), c.label()
	c.prologue()
	c.st(sIndex, asm.R3, asm.Word)
	c.mapPtr(asm.R1, mapLimits)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, none)
	c.mov(asm.R8, asm.R0)
	for i := range g.limitKinds {
		next := c.label()
		c.emit(asm.LoadMem(asm.R0, asm.R8, 8, asm.Word))
		c.jif(asm.JNE, asm.R0, uint64(i), next)
		c.call(limitKeyName(i))
		c.jif(asm.JEq, asm.R0, 0, none)
		c.ja(keyed)
		c.mark(next)
	}
	c.ja(none)
	c.mark(keyed)
	c.helper(asm.FnKtimeGetBootNs)
	c.st(sNow, asm.R0, asm.DWord)
	c.emit(asm.LoadMem(asm.R0, asm.R8, 0, asm.DWord)) // both numbers
	c.emit(asm.StoreMem(regScratch, sSlotBase, asm.R0, asm.DWord))
	c.sti(sSlotMine, 0, asm.DWord)
	c.emit(asm.LoadMem(asm.R1, asm.R8, 4, asm.Word), asm.Add.Imm(asm.R1, 1))
	c.min(asm.R1, limitWindow)
	g.needs(fnEachSlot, eachSlot)
	c.loop(fnEachSlot)
	c.ld(asm.R0, sSlotMine, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, mine)
	c.ld(asm.R0, sSlotFree, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, none)
	c.mark(mine)
	c.emit(asm.Sub.Imm(asm.R0, 1))
	c.st(sIndex, asm.R0, asm.Word)
	c.mapPtr(asm.R1, mapBuckets)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JNE, asm.R0, 0, slot)
	c.mark(none)
	c.retImm(0)
	c.mark(slot)
	c.mov(asm.R7, asm.R0)
	c.bucket()
	return c
}

// bucket takes a token of the bucket R7 of the limit R8, and returns.
func (c *code) bucket() {
	own, fresh, over := c.label(), c.label(), c.label()
	unlock := func(v int32) {
		c.mov(asm.R1, asm.R7)
		c.helper(asm.FnSpinUnlock)
		c.retImm(v)
	}
	c.mov(asm.R1, asm.R7)
	c.helper(asm.FnSpinLock)
	c.ld(asm.R1, sHash, asm.DWord)
	c.ld(asm.R2, sNow, asm.DWord)
	c.emit(asm.LoadMem(asm.R3, asm.R7, bucketKey, asm.DWord), asm.LoadMem(asm.R4, asm.R7, bucketFull, asm.DWord))
	c.jreg(asm.JEq, asm.R3, asm.R1, own)
	c.jreg(asm.JGT, asm.R4, asm.R2, over) // another key took it meanwhile
	c.ja(fresh)
	c.mark(own)
	started := c.label()
	c.jreg(asm.JGE, asm.R4, asm.R2, started)
	c.mark(fresh)
	c.mov(asm.R4, asm.R2)
	c.mark(started)
	// R4 = full, R5 = full + cost - now, which must not exceed what the bucket holds.
	c.emit(asm.LoadMem(asm.R0, asm.R8, 16, asm.DWord), asm.Add.Reg(asm.R4, asm.R0))
	c.mov(asm.R5, asm.R4)
	c.emit(asm.Sub.Reg(asm.R5, asm.R2), asm.LoadMem(asm.R0, asm.R8, 24, asm.DWord))
	c.jreg(asm.JGT, asm.R5, asm.R0, over)
	c.emit(asm.StoreMem(asm.R7, bucketKey, asm.R1, asm.DWord), asm.StoreMem(asm.R7, bucketFull, asm.R4, asm.DWord))
	unlock(1)
	c.mark(over)
	unlock(0)
}

// eachSlot is the callback that looks for the key's slot, or else a free one.
func eachSlot() *code {
	c := newCode(fnEachSlot)
	next, other := c.label(), c.label()
	c.mov(asm.R7, asm.R1)
	c.callback()
	c.ld(asm.R0, sHash, asm.DWord)
	c.emit(asm.Add.Reg(asm.R7, asm.R0))
	c.ld(asm.R0, sSlotMask, asm.Word)
	c.emit(asm.And.Reg(asm.R7, asm.R0))
	c.ld(asm.R0, sSlotBase, asm.Word)
	c.emit(asm.Add.Reg(asm.R7, asm.R0))
	c.st(sIndex, asm.R7, asm.Word)
	c.mapPtr(asm.R1, mapBuckets)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, next)
	c.emit(asm.Add.Imm(asm.R7, 1))
	c.ld(asm.R1, sHash, asm.DWord)
	c.emit(asm.LoadMem(asm.R2, asm.R0, bucketKey, asm.DWord))
	c.jreg(asm.JNE, asm.R2, asm.R1, other)
	c.st(sSlotMine, asm.R7, asm.Word)
	c.retImm(1)
	c.mark(other)
	c.ld(asm.R1, sSlotFree, asm.Word)
	c.jif(asm.JNE, asm.R1, 0, next)
	c.ld(asm.R1, sNow, asm.DWord)
	c.emit(asm.LoadMem(asm.R2, asm.R0, bucketFull, asm.DWord))
	c.jreg(asm.JGT, asm.R2, asm.R1, next)
	c.st(sSlotFree, asm.R7, asm.Word)
	c.mark(next)
	c.retImm(0)
	return c
}
