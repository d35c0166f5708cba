package filter

import (
	"fmt"
	"math/bits"
	"strings"
)

// describe says in words where the places are.
func describe(t Type, at []Place) string {
	if t == TypeProtocol {
		return "the layer's bytes"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, offset ", at[0].Layer)
	for i, a := range at {
		if i > 0 {
			b.WriteString(" and ")
		}
		fmt.Fprint(&b, a.Off)
	}
	fmt.Fprintf(&b, ", %d byte", at[0].Len)
	if at[0].Len > 1 {
		b.WriteByte('s')
	}
	if n := bits.OnesCount64(at[0].Mask); n < 8*at[0].Len {
		fmt.Fprintf(&b, ", mask %#x", at[0].Mask<<at[0].Shift)
	}
	return b.String()
}
