package filter

import (
	"cmp"
	"slices"

	"github.com/agnivade/levenshtein"
)

// catalogue is the one table of fields: Wireshark's names and meaning, but for
// sender.*, iface.* and *.malformed, which are ours. docs/fields.md is printed
// from it.
var catalogue = slices.Concat(linkFields, arpFields, ipFields, dhcpFields, clientIDFields, agentFields, avbFields, metaFields)

var byName = func() map[string]*Field {
	m := make(map[string]*Field, len(catalogue))
	for i := range catalogue {
		m[catalogue[i].Name] = &catalogue[i]
	}
	return m
}()

// Fields are the rows of the catalogue. The caller must not change them.
func Fields() []*Field {
	all := make([]*Field, len(catalogue))
	for i := range catalogue {
		all[i] = &catalogue[i]
	}
	return all
}

// Lookup finds a field by its name; nil if there is none.
func Lookup(name string) *Field { return byName[name] }

// maxMisspelt bounds the names that suggestions are looked for, in bytes: no
// field's name comes near it, and the search takes long.
const maxMisspelt = 100

// Suggest gives the names that a misspelt one may have meant, the likeliest
// first; at most three, none if nothing comes near.
func Suggest(name string) []string {
	type guess struct {
		name     string
		distance int
	}
	var near []guess
	if len(name) > maxMisspelt {
		return nil
	}
	for i := range catalogue {
		d := levenshtein.ComputeDistance(name, catalogue[i].Name)
		if d < len(name) && d <= max(2, len(name)/4) {
			near = append(near, guess{catalogue[i].Name, d})
		}
	}
	slices.SortStableFunc(near, func(a, b guess) int { return cmp.Compare(a.distance, b.distance) })
	var names []string
	for _, g := range near[:min(len(near), 3)] {
		names = append(names, g.name)
	}
	return names
}

// The makers of rows. A row that they do not fit is written out.

// uintAt is a number that fills its bytes.
func uintAt(name string, l Layer, off, n int, doc string) Field {
	return placed(name, TypeUint, doc, Place{Layer: l, Off: off, Len: n})
}

// bitsAt is a number of some bits of its bytes.
func bitsAt(name string, l Layer, off, n int, shift uint8, mask uint64, doc string) Field {
	return placed(name, TypeUint, doc, Place{l, off, n, shift, mask})
}

// flagAt is one bit of its bytes.
func flagAt(name string, l Layer, off, n int, shift uint8, doc string) Field {
	return placed(name, TypeBool, doc, Place{l, off, n, shift, 1})
}

// layerField is a layer's presence and bytes.
func layerField(l Layer, doc string) Field {
	f := placed(l.String(), TypeProtocol, doc, Place{Layer: l})
	f.Many = l == LayerVLAN
	return f
}

// placed is a field with a fixed place for each occurrence.
func placed(name string, t Type, doc string, at ...Place) Field {
	f := Field{Name: name, Type: t, Engines: Everywhere, Doc: doc, At: at, Many: len(at) > 1 || at[0].Layer == LayerVLAN}
	for i := range at {
		if at[i].Mask == 0 && at[i].Len <= 8 {
			at[i].Mask = 1<<(8*at[i].Len) - 1
		}
	}
	if t == TypeUint {
		for m := at[0].Mask; m != 0; m >>= 1 {
			f.Bits++
		}
	}
	f.Where = describe(t, at)
	return f
}

// computed is a field that takes code to find.
func computed(name string, t Type, width int, where, doc string, get func(*Packet) (Value, bool)) Field {
	return Field{Name: name, Type: t, Bits: width, Engines: Everywhere, Where: where, Doc: doc,
		get: func(p *Packet, i int) (Value, bool) {
			if i != 0 {
				return Value{}, false
			}
			return get(p)
		}}
}
