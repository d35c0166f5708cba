package bpf

import (
	"encoding/binary"
	"testing"
)

// TestTable: every key has one of its two places, whatever the keys; what is too much gets no table.
func TestTable(t *testing.T) {
	for _, size := range []int{4, 8, 12, 32} {
		for _, n := range []int{1, 2, 5, 100, 4096, 20_000} {
			for _, stride := range []uint64{1, 256, 1 << 16, 1<<24 + 1} {
				keys := make([][]byte, n)
				for i := range keys {
					keys[i] = make([]byte, size)
					if size == 4 {
						binary.BigEndian.PutUint32(keys[i], uint32(i)*uint32(stride)|uint32(i))
					} else {
						binary.NativeEndian.PutUint64(keys[i][size-8:], uint64(i)*stride)
					}
				}
				tab := newTable(keys)
				if tab == nil {
					t.Errorf("%d keys of %d bytes, stride %d: no table", n, size, stride)
					continue
				}
				for i, k := range keys {
					p := tab.places(k)
					if tab.slots[p[0]] != i && tab.slots[p[1]] != i {
						t.Fatalf("%d keys of %d bytes, stride %d: key %d is at neither of %v", n, size, stride, i, p)
					}
				}
			}
		}
	}
	if newTable(nil) != nil || newTable([][]byte{make([]byte, 36)}) != nil {
		t.Error("a table of nothing, or of long keys")
	}
}
