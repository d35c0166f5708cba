package filter

import (
	"encoding/hex"
	"net/netip"
	"strconv"
)

// NewConst is a constant that prints as ParseConst reads it. prefix is its prefix
// length in bits (TypeIPv4, TypeIPv6), or Full.
func NewConst(t Type, v Value, prefix int) Const {
	c := Const{Type: t, Value: v, Prefix: prefix, Text: FormatValue(t, v)}
	if prefix != Full {
		c.Text += "/" + strconv.Itoa(prefix)
	}
	return c
}

// FormatValue writes a value as the elements of sets are written.
func FormatValue(t Type, v Value) string {
	switch t {
	case TypeMAC:
		return colons(v.Num, 6)
	case TypeIPv4:
		n := uint32(v.Num)
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
	case TypeIPv6:
		if a, ok := netip.AddrFromSlice(v.Bytes); ok {
			return a.String()
		}
	case TypeUint, TypeBool:
		return strconv.FormatUint(v.Num, 10)
	case TypeString:
		return string(v.Bytes)
	}
	return hex.EncodeToString(v.Bytes)
}
