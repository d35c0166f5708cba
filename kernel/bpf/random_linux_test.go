package bpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

// maker draws policies and frames at random. What it draws follows from its seed and
// the frames it has. Most expressions compare with a value that some frame has.
type maker struct {
	*rand.Rand
	kinds map[string][][]byte
	order []string // of kinds
	pkt   filter.Packet

	// What one policy is made from: frames, what is known beside them, and sets.
	working [][]byte
	world   filter.Meta
	pid     uint32
	sets    []randomSet
	types   filter.SetTypes
	limited bool // there are limits
	ingress bool // the frames come in, and have no sender
	settled bool // the sender's cgroup stays: a limit goes by its number, of which there is one
}

// newMaker makes the n-th policy's maker: each can be made again by itself.
func newMaker(seed, n uint64, kinds map[string][][]byte, pid uint32) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, n)), kinds: kinds, pid: pid}
	for k := range kinds {
		m.order = append(m.order, k)
	}
	slices.Sort(m.order)
	for range 64 {
		k := kinds[m.order[m.IntN(len(m.order))]]
		m.working = append(m.working, k[m.IntN(len(k))])
	}
	for range 16 {
		m.working = append(m.working, m.dhcp())
	}
	return m
}

// cgroupPaths are paths that policies name, and that senders are said to have.
var cgroupPaths = []string{"/", "/a", "/a/b", "/system.slice/dhclient.service", "/" + strings.Repeat("kubepods-", 16)}

// change draws what is known beside the frames.
func (m *maker) change() {
	w := filter.Meta{Iface: []string{"lo", "eth0", "abcdefghijklmno"}[m.IntN(3)], HasIfaceMAC: m.IntN(4) > 0, Mark: m.Uint32N(4)}
	if w.HasIfaceMAC {
		copy(w.IfaceMAC[:], m.bytes("eth.src", 6))
	}
	w.Sender = &filter.Sender{PID: m.pid, Comm: []string{"bpf.test", "dhclient", "a", "abcdefghijklmno"}[m.IntN(4)], Cgroup: cgroupPaths[m.IntN(len(cgroupPaths))]}
	if m.ingress {
		w.Ingress, w.Sender = true, nil
	} else if m.settled {
		w.Sender.Cgroup = m.world.Sender.Cgroup
	}
	m.world = w
}

// look decodes a frame, one that has the field if the policy is made from any.
func (m *maker) look(f *filter.Field) (filter.Value, bool) {
	if len(m.working) == 0 {
		return filter.Value{}, false
	}
	for i, from := 0, m.IntN(len(m.working)); i < len(m.working); i++ {
		m.pkt.Decode(m.working[(from+i)%len(m.working)], &m.world)
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
		return m.quoted(v.Bytes)
	}
	if len(v.Bytes) == 0 {
		return "00"
	}
	n := len(v.Bytes)
	if n > 64 && m.IntN(8) > 0 {
		n = 1 + m.IntN(64)
	}
	c := append([]byte(nil), v.Bytes[:min(n, maxBytes)]...)
	if m.IntN(4) == 0 {
		c[m.IntN(len(c))]++
	}
	return hex(c)
}

// quoted is a text near b.
func (m *maker) quoted(b []byte) string {
	b = slices.Clone(b)
	switch m.IntN(8) {
	case 0:
		b = append(b, 'a')
	case 1:
		b = b[:max(len(b)-1, 0)]
	case 2:
		b = append(b, 0, 'a')
	case 3:
		b = []byte(names[m.IntN(len(names))])
	}
	s := ""
	for _, c := range b {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '/' {
			s += string(rune(c))
		} else {
			s += fmt.Sprintf(`\x%02x`, c)
		}
	}
	return `"` + s + `"`
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

// octets are a value's bytes on the wire, none if its type has no slices.
func octets(t filter.Type, v filter.Value) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v.Num)
	switch t {
	case filter.TypeMAC:
		return b[2:]
	case filter.TypeIPv4:
		return b[4:]
	}
	return v.Bytes
}
