package filter

// Type is the type of a field, a constant or a set element.
type Type uint8

// The types of the language. Uint covers every unsigned number up to 64 bits.
const (
	TypeNone     Type = iota
	TypeUint          // unsigned number, host order once decoded
	TypeBool          // 0 or 1
	TypeMAC           // EUI-48, 6 bytes
	TypeIPv4          // 4 bytes
	TypeIPv6          // 16 bytes
	TypeBytes         // any number of bytes: 02:00:00
	TypeString        // text, compared byte by byte
	TypeProtocol      // a protocol's own bytes, from its header to its end: frame, eth, arp
)

// String gives the type's name as policy files and error messages spell it.
func (t Type) String() string {
	return [...]string{"none", "number", "boolean", "mac", "ipv4", "ipv6", "bytes", "string", "protocol"}[t]
}

// Numeric reports whether values of the type live in Value.Num.
func (t Type) Numeric() bool {
	return t == TypeUint || t == TypeBool || t == TypeMAC || t == TypeIPv4
}

// Value is one occurrence of a field. Num holds numbers, booleans, IPv4
// addresses and EUI-48 addresses (the first byte on the wire is the most
// significant); Bytes holds the other types and points into the frame, which
// the caller owns.
type Value struct {
	Num   uint64
	Bytes []byte
}

// Expr is a parsed, type-checked expression. It is immutable and its String
// parses back to an equal expression.
type Expr interface {
	String() string
	expr()
}

// And is true if all of X are. It has at least two operands.
type And struct{ X []Expr }

// Or is true if any of X is. It has at least two operands.
type Or struct{ X []Expr }

// Not is true if X is not.
type Not struct{ X Expr }

// Present is true if the field occurs (and its slice, if any, lies within it).
type Present struct{ Field Ref }

// Test is `field & mask`: true if any occurrence has any bit of the mask.
// Ref.Mask carries the mask.
type Test struct{ Field Ref }

// Op is a comparison operator.
type Op uint8

// The comparison operators.
const (
	Eq Op = iota
	Ne
	Lt
	Le
	Gt
	Ge
)

// String gives the operator in its symbol form.
func (o Op) String() string { return [...]string{"==", "!=", "<", "<=", ">", ">="}[o] }

// Compare compares a field with a constant, or with another field when Other
// is not nil. An absent field makes it false. Ne is true only if all
// occurrences differ; the other operators if any occurrence compares true.
type Compare struct {
	Field Ref
	Op    Op
	Const Const
	Other *Ref
}

// In is `field in {a, b, c..d}`, `field in @set` or `(f, g) in @set`. With Set
// empty it has one Ref and at least one element.
type In struct {
	Fields   []Ref
	Elements []Range
	Set      string
}

// Range is an inclusive range of constants; Hi equals Lo for a single value.
// A CIDR element keeps its prefix in Lo.
type Range struct{ Lo, Hi Const }

// Ref names a field, perhaps a slice of its bytes, perhaps masked.
type Ref struct {
	Field *Field
	// Slice, when not nil, makes the value a TypeBytes.
	Slice *Slice
	// Mask, when not 0, is and-ed to a numeric value before it is compared. A
	// masked slice has 1 to 8 bytes and is a TypeUint, the first byte the most
	// significant.
	Mask uint64
}

// Type is the type the reference's values have.
func (r Ref) Type() Type {
	switch {
	case r.Slice == nil:
		return r.Field.Type
	case r.Mask != 0:
		return TypeUint
	}
	return TypeBytes
}

// Slice is field[Off:Len]. A negative offset counts from the end; Len < 0
// means "to the end". A value too short for it has no such slice, and an empty
// slice counts as absent.
type Slice struct{ Off, Len int }

// Const is a constant of the language.
type Const struct {
	Type Type
	Value
	// Prefix is the prefix length in bits of a CIDR constant (TypeIPv4,
	// TypeIPv6), whose Value has its host bits cleared; Full for all other
	// constants.
	Prefix int
	// Text is how the constant was written, and how it is printed again.
	Text string
}

// Full is the Prefix of a constant that is not a CIDR prefix.
const Full = -1

func (*And) expr()     {}
func (*Or) expr()      {}
func (*Not) expr()     {}
func (*Present) expr() {}
func (*Test) expr()    {}
func (*Compare) expr() {}
func (*In) expr()      {}

// SetTypes tells the parser the element types of the named sets in scope: one
// for a plain set, several for a set of tuples.
type SetTypes map[string][]Type

// Container is a live set as the evaluator sees it. Contains must not keep
// key or the bytes behind it.
type Container interface {
	Contains(key []Value) bool
}

// Sets resolves set names when an expression is evaluated.
type Sets map[string]Container
