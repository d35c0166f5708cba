package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

// maker draws expressions about frames at random: most compare with a value that
// some frame has.
type maker struct {
	*rand.Rand
	frames [][]byte
	fields []*filter.Field
	pkt    filter.Packet
}

func newMaker(seed uint64, frames [][]byte) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 0)), frames: frames}
	for _, f := range filter.Fields() {
		if f.Name != "sender.cgroup" && f.Name != "sender.pid" && f.Name != "sender.uid" && f.Name != "sender.comm" {
			m.fields = append(m.fields, f)
		}
	}
	return m
}

// look decodes a frame, often one that has the field.
func (m *maker) look(f *filter.Field) (filter.Value, bool) {
	for range 40 {
		m.pkt.Decode(m.frames[m.IntN(len(m.frames))], filter.Meta{Iface: "lo"})
		for i := m.IntN(3); i >= 0; i-- {
			if v, ok := f.Value(&m.pkt, i); ok {
				return v, true
			}
		}
	}
	return filter.Value{}, false
}

func hex(b []byte) string {
	var s []string
	for _, c := range b {
		s = append(s, fmt.Sprintf("%02x", c))
	}
	return strings.Join(s, ":")
}

// constant writes a value of a type, near v.
func (m *maker) constant(t filter.Type, bits int, v filter.Value) string {
	if m.IntN(4) == 0 {
		v.Num += uint64(m.IntN(3)) - 1
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v.Num)
	switch t {
	case filter.TypeUint:
		if bits > 0 && bits < 64 {
			v.Num &= 1<<bits - 1
		}
		return fmt.Sprint(v.Num)
	case filter.TypeBool:
		return fmt.Sprint(v.Num & 1)
	case filter.TypeMAC:
		return hex(b[2:])
	case filter.TypeIPv4:
		s := netip.AddrFrom4([4]byte(b[4:])).String()
		if m.IntN(3) == 0 {
			s += fmt.Sprint("/", m.IntN(33))
		}
		return s
	case filter.TypeIPv6:
		var a [16]byte
		copy(a[:], v.Bytes)
		if m.IntN(3) == 0 {
			a[m.IntN(16)]++
		}
		s := netip.AddrFrom16(a).String()
		if m.IntN(3) == 0 {
			s += fmt.Sprint("/", m.IntN(129))
		}
		return s
	case filter.TypeString:
		s := []rune{}
		for _, c := range v.Bytes {
			if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
				s = append(s, rune(c))
			}
		}
		if m.IntN(4) == 0 {
			s = append(s, 'a')
		} else if len(s) > 0 && m.IntN(4) == 0 {
			s = s[:len(s)-1]
		}
		return `"` + string(s) + `"`
	}
	if len(v.Bytes) == 0 {
		return "00"
	}
	n := len(v.Bytes)
	if n > 64 {
		n = 1 + m.IntN(64)
	}
	c := append([]byte(nil), v.Bytes[:n]...)
	if m.IntN(4) == 0 {
		c[m.IntN(n)]++
	}
	return hex(c)
}

var orderings = []string{"==", "!=", "<", "<=", ">", ">=", "==", "=="}

// atom is one test on one field.
func (m *maker) atom() string {
	f := m.fields[m.IntN(len(m.fields))]
	v, ok := m.look(f)
	op := orderings[m.IntN(len(orderings))]
	bytes := v.Bytes
	if ok && (f.Type == filter.TypeMAC || f.Type == filter.TypeIPv4) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], v.Num)
		bytes = b[2:]
		if f.Type == filter.TypeIPv4 {
			bytes = b[4:]
		}
	}
	switch k := m.IntN(10); {
	case k == 0 || f.Type == filter.TypeNone:
		return f.Name
	case k == 1 && f.Type == filter.TypeUint:
		return fmt.Sprintf("%s & %d", f.Name, 1+m.IntN(1<<min(f.Bits, 16)-1))
	case k == 2 && f.Type != filter.TypeBool:
		return f.Name + " " + op + " " + m.sameType(f)
	case k <= 4 && len(bytes) > 1:
		return m.slice(f.Name, bytes, op)
	case k == 5:
		var el []string
		for range 1 + m.IntN(4) {
			el = append(el, m.constant(f.Type, f.Bits, v))
			v, _ = m.look(f)
		}
		return f.Name + " in {" + strings.Join(el, ", ") + "}"
	case k == 6 && f.Type == filter.TypeUint:
		return fmt.Sprintf("%s in {%d..%d}", f.Name, v.Num, v.Num+uint64(m.IntN(3)))
	}
	c := m.constant(f.Type, f.Bits, v)
	if strings.Contains(c, "/") && op != "!=" {
		op = "=="
	}
	return f.Name + " " + op + " " + c
}

func (m *maker) sameType(f *filter.Field) string {
	for {
		g := m.fields[m.IntN(len(m.fields))]
		if g.Type == f.Type {
			return g.Name
		}
	}
}

// slice compares a part of a field.
func (m *maker) slice(name string, b []byte, op string) string {
	off := m.IntN(len(b))
	n := 1 + m.IntN(min(len(b)-off, 20))
	c := append([]byte(nil), b[off:off+n]...)
	if m.IntN(4) == 0 {
		c[m.IntN(n)]++
	}
	switch m.IntN(4) {
	case 0:
		return fmt.Sprintf("%s[%d:%d] %s %s", name, off-len(b), n, op, hex(c))
	case 1:
		if n <= 8 {
			return fmt.Sprintf("%s[%d:%d] & %s == %s", name, off, n, hex(c), hex(c))
		}
	case 2:
		if len(b)-off <= 40 {
			return fmt.Sprintf("%s[%d:] %s %s", name, off, op, hex(b[off:]))
		}
	}
	return fmt.Sprintf("%s[%d:%d] %s %s", name, off, n, op, hex(c))
}

// expr is a tree of atoms that the language takes.
func (m *maker) expr(depth int, types filter.SetTypes) string {
	for {
		s := m.tree(depth)
		if _, err := filter.Parse(s, types); err == nil {
			return s
		}
	}
}

func (m *maker) tree(depth int) string {
	switch n := m.IntN(6); {
	case depth == 0 || n < 2:
		return m.atom()
	case n == 2:
		return "!(" + m.tree(depth-1) + ")"
	case n == 3:
		return "(" + m.tree(depth-1) + " || " + m.tree(depth-1) + ")"
	}
	return "(" + m.tree(depth-1) + " && " + m.tree(depth-1) + ")"
}

// mutate changes a few bytes of a frame, or its length.
func (m *maker) mutate(frame []byte) []byte {
	b := append([]byte(nil), frame...)
	for range 1 + m.IntN(3) {
		switch m.IntN(8) {
		case 0:
			b = b[:m.IntN(len(b)+1)]
		case 1: // insert a tag
			if len(b) > 12 {
				tag := []byte{0x81, 0, byte(m.IntN(256)), byte(m.IntN(256))}
				b = append(append(append([]byte(nil), b[:12]...), tag...), b[12:]...)
			}
		case 2: // an LLC or SNAP header in place of the EtherType
			if len(b) > 14 {
				n := len(b) - 14 + 8 + m.IntN(3) - 1
				head := append([]byte(nil), b[:12]...)
				head = append(head, byte(n>>8), byte(n), 0xaa, 0xaa, 3, 0, 0, 0)
				b = append(head, b[12:]...)
			}
		default:
			if len(b) == 0 {
				continue
			}
			// Where headers and options are more often than elsewhere.
			at := m.IntN(len(b))
			if m.IntN(2) == 0 {
				at = m.IntN(min(len(b), 64))
			}
			b[at] = []byte{0, 1, byte(m.IntN(256)), b[at] + 1, b[at] - 1, 255}[m.IntN(6)]
		}
	}
	return b
}
