package bpf

import (
	"fmt"
	"strings"

	"github.com/postern-fw/postern/firewall/filter"
)

var orderings = []string{"==", "!=", "<", "<=", ">", ">=", "==", "=="}

// field draws a field; those in DHCP options are many and so come often.
func (m *maker) field() *filter.Field { return filter.Fields()[m.IntN(len(filter.Fields()))] }

// senderPID is another number in each run, and so is only compared with itself and what is next
// to it: then all else is as in the run before.
const senderPID = "sender.pid"

func (m *maker) process() string {
	n := int(m.pid) - 1 + m.IntN(3)
	return senderPID + []string{"", fmt.Sprint(" == ", n), fmt.Sprint(" != ", n), fmt.Sprint(" < ", n), fmt.Sprintf(" in {%d, %d}", n, n+5)}[m.IntN(5)]
}

// atom is one test.
func (m *maker) atom() string {
	if len(m.sets) > 0 && m.IntN(5) == 0 {
		return m.lookup()
	}
	f := m.field()
	switch f.Name {
	case senderCgroup:
		return m.cgroup()
	case senderPID:
		return m.process()
	}
	v, _ := m.look(f)
	op, b := orderings[m.IntN(len(orderings))], octets(f.Type, v)
	switch k := m.IntN(10); {
	case k == 0 || f.Type == filter.TypeNone:
		return f.Name
	case k == 1 && f.Type == filter.TypeUint:
		return fmt.Sprintf("%s & %d", f.Name, 1+m.IntN(1<<min(f.Bits, 16)-1))
	case k == 2 && f.Type != filter.TypeBool:
		return m.two(f, b, op)
	case k <= 4 && len(b) > 1:
		return m.slice(f.Name, b, op)
	case k == 5:
		var el []string
		for range 1 + m.IntN(4) {
			el = append(el, m.constant(f.Type, f.Bits, v))
			v, _ = m.look(f)
		}
		return f.Name + " in {" + strings.Join(el, ", ") + "}"
	case k == 6 && f.Type == filter.TypeUint:
		return fmt.Sprintf("%s in {%d..%d}", f.Name, v.Num, v.Num+uint64(m.IntN(3)))
	case k == 6 && f.Type == filter.TypeString:
		return fmt.Sprintf("%s in {%s..%s}", f.Name, m.quoted(v.Bytes), m.quoted(append(v.Bytes, 'z')))
	}
	c := m.constant(f.Type, f.Bits, v)
	if strings.Contains(c, "/") && f.Type != filter.TypeString && op != "!=" {
		op = "=="
	}
	return f.Name + " " + op + " " + c
}

// two compares two fields, or parts of them.
func (m *maker) two(f *filter.Field, b []byte, op string) string {
	for {
		g := m.field()
		v, _ := m.look(g)
		c := octets(g.Type, v)
		switch {
		case g.Name == senderPID:
		case len(b) > 0 && len(c) > 0 && m.IntN(4) == 0:
			n := 1 + m.IntN(min(len(b), len(c), 20))
			part := func(name string, b []byte) string {
				off := m.IntN(len(b) - n + 1)
				return []string{fmt.Sprintf("%s[%d:%d]", name, off, n), fmt.Sprintf("%s[%d:]", name, off), fmt.Sprintf("%s[%d:%d]", name, off-len(b), n)}[m.IntN(3)]
			}
			return part(f.Name, b) + " " + op + " " + part(g.Name, c)
		case g.Type == f.Type, f.Type >= filter.TypeBytes && g.Type == filter.TypeMAC, f.Type == filter.TypeMAC && g.Type >= filter.TypeBytes:
			return f.Name + " " + op + " " + g.Name
		}
	}
}

func (m *maker) cgroup() string {
	path := func() string { return `"` + cgroupPaths[m.IntN(len(cgroupPaths))] + `"` }
	return senderCgroup + []string{"", " == " + path(), " != " + path(), " in {" + path() + ", " + path() + "}"}[m.IntN(4)]
}

// expr is a tree of tests that the language takes.
func (m *maker) expr(depth int) string {
	for {
		s := m.tree(depth)
		if _, err := filter.Parse(s, m.types); err == nil {
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

// policy draws a whole one.
func (m *maker) policy() string {
	m.change()
	m.drawSets()
	rules := []int{1 + m.IntN(12), 1 + m.IntN(12), 10 + m.IntN(60), 100 + m.IntN(200), 100 + m.IntN(200)}[m.IntN(5)]
	if m.IntN(40) == 0 {
		rules = 3000
	}
	var b strings.Builder
	fmt.Fprintf(&b, "policy: p\nmalformed: %s\ndefault: %s\n", []string{"match", "match", "match", "drop"}[m.IntN(4)], []string{"accept", "drop"}[m.IntN(2)])
	if m.IntN(16) == 0 {
		b.WriteString("mode: audit\n")
	}
	b.WriteString(m.declarations())
	b.WriteString("rules:\n")
	match := func() string { return m.expr(3) }
	if rules > 60 {
		match = m.keyed()
	}
	verdicts, limits := m.IntN(6), 0
	for i := range rules {
		fmt.Fprintf(&b, "  - {name: r%d, match: '%s', verdict: %s", i, match(), m.verdict(verdicts))
		if limits < 40 && m.IntN(8) == 0 {
			limits, m.limited = limits+1, true
			b.WriteString(m.limit())
		}
		if m.IntN(20) == 0 {
			b.WriteString(", log: true")
		}
		if m.IntN(20) == 0 {
			b.WriteString(", mode: audit")
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// verdict draws what a rule does; in policies of kind 0 all verdicts end the walk, in
// those of kind 1 few do.
func (m *maker) verdict(kind int) string {
	k := m.IntN(12)
	switch {
	case kind == 0:
		k %= 5
	case kind == 1 && m.IntN(8) > 0:
		k = max(k, 5)
	}
	switch k {
	case 0, 1:
		return "accept"
	case 2, 3:
		return "drop"
	case 4:
		return []string{"{forward: out}", "{forward: gone}"}[m.IntN(2)]
	case 5, 6, 7:
		return "{duplicate: copies}"
	case 8, 9:
		return fmt.Sprintf("{set: {eth.dst: '%s'}}", hex(m.bytes("eth.src", 6)))
	case 10:
		return "{set: {arp.src.proto_ipv4: 192.0.2.1, arp.dst.hw_mac: '02:00:00:00:00:01'}}"
	}
	return fmt.Sprintf("{mark: %d}", []uint32{7, 1<<32 - 1, 0}[m.IntN(3)])
}

// limit draws a limit whose buckets do not refill while the test runs.
func (m *maker) limit() string {
	var per []string
	for range m.IntN(4) {
		if f := m.field(); f.Type != filter.TypeProtocol && f.Type != filter.TypeNone {
			per = append(per, f.Name)
			m.settled = m.settled || f.Name == senderCgroup
		}
	}
	s := fmt.Sprintf(", limit: {rate: %d/d, burst: %d", 1+m.IntN(2), 1+m.IntN(6))
	if len(per) > 0 {
		s += ", per: [" + strings.Join(per, ", ") + "]"
	}
	return s + "}"
}

// keyedFields are fields whose values become keys: of one occurrence, of two, of
// one for each tag, in options and in lists of them.
var keyedFields = []string{"eth.src", "eth.addr", "eth.type", "vlan.id", "vlan.etype", "arp.opcode", "arp.src.proto_ipv4", "ip.addr", "ip.src",
	"ip.proto", "ipv6.dst", "ipv6.addr", "udp.port", "udp.length", "dhcp.option.dhcp", "dhcp.option.hostname", "dhcp.option.router", "dhcp.option.type",
	"dhcp.option.value", "dhcp.hw.mac_addr", "dhcp.option.agent_information_option.agent_circuit_id",
	"dhcp.option.agent_information_option.suboption", "dhcp.id", "iface.name", "frame.len", "sender.comm", "sender.cgroup", "eth.dst.ig"}

// keyed draws rules that differ in the values they compare, but for some.
func (m *maker) keyed() func() string {
	var templates [][]*filter.Field
	for range 6 {
		var t []*filter.Field
		for range 1 + m.IntN(2) {
			t = append(t, filter.Lookup(keyedFields[m.IntN(len(keyedFields))]))
		}
		templates = append(templates, t)
	}
	var rests []string
	for range 5 {
		rests = append(rests, m.expr(2))
	}
	return func() string {
		var and []string
		for _, f := range templates[m.IntN(len(templates))] {
			v, _ := m.look(f)
			e := f.Name + " == " + m.constant(f.Type, f.Bits, v)
			if f.Name == senderCgroup {
				e = fmt.Sprintf("%s == %q", f.Name, cgroupPaths[m.IntN(len(cgroupPaths))])
			}
			if _, err := filter.Parse(e, nil); err == nil {
				and = append(and, e)
			}
		}
		switch {
		case m.IntN(10) == 0:
			and = append(and, m.expr(1))
		case m.IntN(3) == 0 || len(and) == 0:
			and = append(and, rests[m.IntN(len(rests))])
		}
		return strings.Join(and, " && ")
	}
}
