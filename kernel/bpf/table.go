package bpf

import (
	"encoding/binary"
	"math/bits"

	"github.com/cilium/ebpf/asm"
)

// table is a shape's keys as an array with two places for each (cuckoo hashing): the kernel's verifier
// turns a look-up in an array into a few instructions, where one in a hash map is three calls. It
// never changes, and so it can be laid out in advance.
type table struct {
	factor uint64 // of the hash
	bits   int    // of an index
	slots  []int  // place -> number of the key, -1 where it is empty
}

// What a table is good for: keys that are compared in a few instructions, and memory that nobody misses.
const (
	maxTableKey  = 32
	maxTableKeys = 1 << 16
)

// newTable lays the keys out, all of one length, in at least twice as many places. It returns nil if they
// are too long or no multiple of 4, or too many, or if luck is against it.
func newTable(keys [][]byte) *table {
	if len(keys) == 0 || len(keys) > maxTableKeys || len(keys[0]) > maxTableKey || len(keys[0])%4 != 0 {
		return nil
	}
	t := &table{bits: max(2, bits.Len(uint(2*len(keys)-1))), factor: 0x9e37_79b9_7f4a_7c15}
	for range 64 {
		if t.fill(keys) {
			return t
		}
		t.factor = t.factor*0x5851_f42d_4c95_7f2d | 1
	}
	return nil
}

// fill reports whether all keys found a place.
func (t *table) fill(keys [][]byte) bool {
	t.slots = make([]int, 1<<t.bits)
	for i := range t.slots {
		t.slots[i] = -1
	}
	for i := range keys {
		key, at := i, 0
		for moves := 0; ; moves++ {
			places := t.places(keys[key])
			if moves == 0 {
				at = places[0]
				if t.slots[at] >= 0 {
					at = places[1]
				}
			}
			key, t.slots[at] = t.slots[at], key
			if key < 0 {
				break
			}
			if moves > 500 {
				return false
			}
			// Whoever stood here goes to its other place.
			places = t.places(keys[key])
			at = places[0] + places[1] - at
		}
	}
	return true
}

// places are the two of a key. The program computes the same (table.find).
func (t *table) places(key []byte) [2]int {
	var h uint64
	for ; len(key) >= 8; key = key[8:] {
		h = (h ^ binary.NativeEndian.Uint64(key)) * t.factor
	}
	if len(key) > 0 {
		h = (h ^ uint64(binary.NativeEndian.Uint32(key))) * t.factor
	}
	return [2]int{int(h >> (64 - t.bits)), int(h >> (64 - 2*t.bits) & (1<<t.bits - 1))}
}

// find emits the look-up of the size bytes at keyAt: R8 points to the value, whose key is at entryBytes. It
// goes to none if there is no such key.
func (t *table) find(c *code, mapName string, keyAt, size int, none label) {
	c.emit(asm.LoadImm(asm.R1, int64(t.factor), asm.DWord))
	c.imm(asm.R7, 0)
	each := func(fn func(off int, size asm.Size)) {
		off := 0
		for ; off+8 <= size; off += 8 {
			fn(off, asm.DWord)
		}
		if off < size {
			fn(off, asm.Word)
		}
	}
	each(func(off int, size asm.Size) {
		c.ld(asm.R0, keyAt+off, size)
		c.emit(asm.Xor.Reg(asm.R7, asm.R0), asm.Mul.Reg(asm.R7, asm.R1))
	})
	found := c.label()
	for place := range 2 {
		other := none
		if place == 0 {
			other = c.label()
		}
		c.mov(asm.R0, asm.R7)
		c.emit(asm.RSh.Imm(asm.R0, int32(64-(place+1)*t.bits)))
		if place > 0 {
			c.emit(asm.And.Imm(asm.R0, int32(1<<t.bits-1)))
		}
		c.st(sIndex, asm.R0, asm.Word)
		c.mapPtr(asm.R1, mapName)
		c.ptr(asm.R2, sIndex)
		c.helper(asm.FnMapLookupElem)
		c.jif(asm.JEq, asm.R0, 0, none)
		c.mov(asm.R8, asm.R0)
		each(func(off int, size asm.Size) {
			c.ld(asm.R0, keyAt+off, size)
			c.emit(asm.LoadMem(asm.R1, asm.R8, int16(entryBytes+off), size))
			c.jreg(asm.JNE, asm.R0, asm.R1, other)
		})
		if place == 0 {
			c.ja(found)
			c.mark(other)
		}
	}
	c.mark(found)
}

// contents puts the values in their places, each with its key behind it. An empty place has a rule that no
// other comes after.
func (t *table) contents(keys, vals [][]byte) contents {
	out := contents{keySize: 4, valSize: entryBytes + (len(keys[0])+7)&^7}
	for place, i := range t.slots {
		out.keys = binary.NativeEndian.AppendUint32(out.keys, uint32(place))
		val := make([]byte, out.valSize)
		if i < 0 {
			binary.NativeEndian.PutUint32(val, 1<<32-1)
		} else {
			copy(val, vals[i])
			copy(val[entryBytes:], keys[i])
		}
		out.vals = append(out.vals, val...)
	}
	return out
}
