package bpf

import (
	"encoding/binary"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/evasions"
)

// samples are frames of every kind: those given, and those of the list of attacks.
func samples(frames [][]byte) map[string][][]byte {
	for _, c := range evasions.Cases(evasions.NewHost()) {
		frames = append(frames, c.Forged.Bytes, c.Honest.Bytes)
	}
	kinds := map[string][][]byte{}
	var p filter.Packet
	for _, f := range frames {
		if len(f) == 0 || len(f) > maxRun {
			continue
		}
		p.Decode(f, nil)
		k := kind(&p)
		kinds[k] = append(kinds[k], f)
	}
	return kinds
}

func kind(p *filter.Packet) string {
	switch {
	case p.HasDHCP:
		return "dhcp"
	case len(p.Frame().Tags()) > 0 || p.Frame().HasSNAP:
		return "tagged"
	case p.HasARP:
		return "arp"
	case p.HasUDP:
		return "udp"
	case p.Malformed != 0:
		return "malformed"
	}
	return "other"
}

// frame draws one of the frames that the policy was made from, or a DHCP message, and
// often damages it.
func (m *maker) frame() []byte {
	f := m.working[m.IntN(len(m.working))]
	if m.IntN(8) == 0 {
		f = m.dhcp()
	}
	if m.IntN(2) == 0 {
		f = m.mutate(f)
	}
	if len(f) < minRun || len(f) > maxRun {
		return m.frame()
	}
	return f
}

// dhcp is a message with options at random: repeated, empty, cut, overloaded; most of
// those that have fields hold values that other frames have as well.
func (m *maker) dhcp() []byte {
	msg := make([]byte, 240, 600)
	msg[0], msg[1], msg[2] = byte(1+m.IntN(2)), 1, 6
	copy(msg[28:], m.bytes("eth.src", 6))
	copy(msg[12+4*m.IntN(4):], m.bytes("ip.src", 4))
	copy(msg[236:], "\x63\x82\x53\x63")
	options := m.options(1 + m.IntN(12))
	if m.IntN(8) == 0 {
		options = append(options, 52, 1, byte(1+m.IntN(3)))
		copy(msg[44:108], append(m.options(2), 255))
		copy(msg[108:236], append(m.options(4), 255))
	}
	options = append(append(options, 53, 1, byte(m.IntN(9))), 255)
	msg = append(msg, options...)
	n := len(msg)
	head := append(append(append([]byte{}, m.bytes("eth.dst", 6)...), m.bytes("eth.src", 6)...), 8, 0,
		0x45, 0, byte((n+28)>>8), byte(n+28), 0, 0, 0, 0, 64, 17, 0, 0)
	head = append(append(head, m.bytes("ip.src", 4)...), m.bytes("ip.dst", 4)...)
	ports := [][]byte{{0, 68, 0, 67}, {0, 67, 0, 68}, {0, 67, 0, 67}}[m.IntN(3)]
	head = append(append(head, ports...), byte((n+8)>>8), byte(n+8), 0, 0)
	return append(head, msg...)
}

// options are n options without an End.
func (m *maker) options(n int) (b []byte) {
	once := map[byte]bool{}
	for range n {
		code := []byte{1, 3, 6, 12, 50, 51, 54, 61, 82, 43, 0, 12, 3}[m.IntN(13)]
		if code == 50 || code == 54 || code == 61 || code == 82 {
			if once[code] && m.IntN(8) > 0 {
				continue
			}
			once[code] = true
		}
		if code == 0 {
			b = append(b, make([]byte, m.IntN(4))...)
			continue
		}
		d := m.optionData(code)
		b = append(append(b, code, byte(len(d))), d...)
	}
	return b
}

func (m *maker) optionData(code byte) (d []byte) {
	if m.IntN(12) == 0 {
		return make([]byte, m.IntN(6))
	}
	switch code {
	case 1, 50, 54:
		return m.bytes("ip.src", 4)
	case 3, 6:
		for range m.IntN(4) {
			d = append(d, m.bytes("ip.addr", 4)...)
		}
		return d
	case 12:
		return m.name()
	case 51:
		return []byte{0, 0, byte(m.IntN(2)), byte(m.IntN(4))}
	case 61:
		switch m.IntN(4) {
		case 0:
			return append([]byte{1}, m.bytes("eth.src", 6)...)
		case 1:
			return append([]byte{0}, m.name()...)
		}
		return append([]byte{255, 0, 0, 0, 1, 0, byte(m.IntN(4)), 0, 1}, m.bytes("eth.src", 6)...)
	case 82:
		for range m.IntN(4) {
			sub := []byte{1, 2, 5, 6, 11, 12}[m.IntN(6)]
			v := m.name()
			if sub == 5 || sub == 11 {
				v = m.bytes("ip.addr", 4)
			}
			if len(d)+len(v) > 250 {
				break
			}
			d = append(append(d, sub, byte(len(v))), v...)
		}
		return d
	}
	return m.name()
}

// name is text as clients send it, now and then long, or with a NUL in it.
func (m *maker) name() []byte {
	b := []byte(names[m.IntN(len(names))])
	for m.IntN(4) == 0 {
		b = append(b, b...)
	}
	if m.IntN(8) == 0 && len(b) > 0 {
		b[m.IntN(len(b))] = 0
	}
	return b[:min(len(b), 200)]
}

// names stand in texts, and in the constants that texts are compared with.
var names = []string{"", "a", "host", "lo", "bpf.test", "dhclient", "client-1.example", "abcdefghijklmno", "abcdefghijklmnop", "x\xff\x80"}

// bytes are a field's on the wire, of some frame, or of none.
func (m *maker) bytes(field string, n int) []byte {
	v, _ := m.look(filter.Lookup(field))
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v.Num)
	return b[8-n:]
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
