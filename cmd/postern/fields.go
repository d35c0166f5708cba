package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

// maxValues is how many occurrences of a field are shown, and maxBytes how many
// bytes of one.
const (
	maxValues = 8
	maxBytes  = 32
)

// fieldsOf adds the fields that e looks at to fields, each once.
func fieldsOf(e filter.Expr, fields []*filter.Field) []*filter.Field {
	add := func(refs ...filter.Ref) {
		for _, r := range refs {
			if !slices.Contains(fields, r.Field) {
				fields = append(fields, r.Field)
			}
		}
	}
	switch e := e.(type) {
	case *filter.And:
		for _, x := range e.X {
			fields = fieldsOf(x, fields)
		}
	case *filter.Or:
		for _, x := range e.X {
			fields = fieldsOf(x, fields)
		}
	case *filter.Not:
		return fieldsOf(e.X, fields)
	case *filter.Present:
		add(e.Field)
	case *filter.Test:
		add(e.Field)
	case *filter.Compare:
		add(e.Field)
		if e.Other != nil {
			add(*e.Other)
		}
	case *filter.In:
		add(e.Fields...)
	}
	return fields
}

// valuesOf shows what a field is in a frame.
func valuesOf(f *filter.Field, p *filter.Packet) string {
	var s []string
	for i := 0; ; i++ {
		v, ok := f.Value(p, i)
		switch {
		case !ok && i == 0:
			return "absent"
		case !ok:
			return strings.Join(s, ", ")
		case i == maxValues:
			return strings.Join(s, ", ") + ", …"
		}
		s = append(s, valueString(f.Type, v))
	}
}

// valueString writes a value as an expression would.
func valueString(t filter.Type, v filter.Value) string {
	switch t {
	case filter.TypeMAC:
		mac := make(net.HardwareAddr, 6)
		for i := range mac {
			mac[i] = byte(v.Num >> (40 - 8*i))
		}
		return mac.String()
	case filter.TypeIPv4:
		return netip.AddrFrom4([4]byte{byte(v.Num >> 24), byte(v.Num >> 16), byte(v.Num >> 8), byte(v.Num)}).String()
	case filter.TypeIPv6:
		if a, ok := netip.AddrFromSlice(v.Bytes); ok {
			return a.String()
		}
	case filter.TypeString:
		return strconv.Quote(string(v.Bytes))
	case filter.TypeBool:
		return strconv.FormatBool(v.Num != 0)
	case filter.TypeUint:
		if v.Num < 10 {
			return strconv.FormatUint(v.Num, 10)
		}
		return fmt.Sprintf("%d (%#x)", v.Num, v.Num)
	case filter.TypeProtocol:
		return "present"
	}
	if len(v.Bytes) > maxBytes {
		return hex.EncodeToString(v.Bytes[:maxBytes]) + "…"
	}
	return hex.EncodeToString(v.Bytes)
}
