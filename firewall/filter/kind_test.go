package filter

import (
	"math/rand/v2"
	"reflect"
	"testing"
)

// plainFrames are frames of each kind, and frames that nearly are.
func plainFrames() (frames []captured) {
	frames = oddFrames()
	for _, f := range benchFrames {
		frames = append(frames, captured{f.name, f.frame, len(f.frame)})
		r := rand.New(rand.NewPCG(3, 4))
		for range 2000 {
			b := append([]byte(nil), f.frame...)
			for range r.IntN(3) {
				b[12+r.IntN(min(len(b), 60)-12)] ^= 1 << r.IntN(8)
			}
			frames = append(frames, captured{f.name, b, len(b)})
		}
	}
	return frames
}

// TestKinds decodes frames as of their kind, and layer by layer, and asks both the same.
func TestKinds(t *testing.T) {
	var seen [Kinds]int
	for _, c := range plainFrames() {
		for _, gso := range []int{0, 500} {
			m := &Meta{WireLen: c.wire, GSOSize: gso, Iface: "eth0", HasIfaceMAC: true}
			var p, q Packet
			p.Decode(c.bytes, m)
			q.meta, q.b = m, c.bytes
			q.decodeLayers(c.bytes)
			seen[p.Kind()]++
			sameFacts(t, c.from, &p, &q)
			sameNumbers(t, c.from, &p, &q)
		}
	}
	for k, n := range seen {
		if n < 100 {
			t.Errorf("%d frames of kind %d", n, k)
		}
	}
}

func sameFacts(t *testing.T, from string, p, q *Packet) {
	t.Helper()
	if p.Malformed != q.Malformed || p.bad != q.bad || p.shown != q.shown || p.plainARP != q.plainARP || p.Summary() != q.Summary() ||
		[5]bool{p.HasARP, p.HasIPv4, p.HasIPv6, p.HasUDP, p.HasDHCP} != [5]bool{q.HasARP, q.HasIPv4, q.HasIPv6, q.HasUDP, q.HasDHCP} {
		t.Fatalf("%s: %s, layer by layer %s\n%x", from, p.Summary(), q.Summary(), p.b)
	}
	for l := LayerFrame; l < layerCount; l++ {
		if a, b := p.Bytes(l), q.Bytes(l); string(a) != string(b) || (a == nil) != (b == nil) {
			t.Fatalf("%s: %s is %x, layer by layer %x", from, l, a, b)
		}
	}
	views := [][2]any{{*p.Frame(), *q.Frame()}}
	for has, pair := range map[*bool][2]any{&p.HasARP: {*p.ARP(), *q.ARP()}, &p.HasIPv4: {*p.IPv4(), *q.IPv4()}, &p.HasUDP: {*p.UDP(), *q.UDP()}, &p.HasDHCP: {*p.DHCP(), *q.DHCP()}} {
		if *has {
			views = append(views, pair)
		}
	}
	for _, pair := range views {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Fatalf("%s: %+v, layer by layer %+v", from, pair[0], pair[1])
		}
	}
}

// sameNumbers compares each field, and what is known of its place in frames of the kind.
func sameNumbers(t *testing.T, from string, p, q *Packet) {
	t.Helper()
	for _, f := range Fields() {
		v, ok := f.Value(q, 0)
		if w, okW := f.Value(p, 0); ok != okW || !reflect.DeepEqual(v, w) {
			t.Fatalf("%s: %s is %v %t, layer by layer %v %t\n%x", from, f.Name, w, okW, v, ok, p.b)
		}
		if ok && f.Never(p.Kind()) {
			t.Fatalf("%s: %s in a frame of kind %d", from, f.Name, p.Kind())
		}
		s, once, known := NewSpot(f, p.Kind())
		if !known {
			continue
		}
		bits := s.Bits(^uint64(0xf))
		if !ok || s.Of(p) != v.Num || bits.Of(p) != bits.From(v.Num) {
			t.Fatalf("%s: %s is %#x %t, at its place %#x\n%x", from, f.Name, v.Num, ok, s.Of(p), p.b)
		}
		if _, more := f.Value(q, 1); more && once && f.Name != "dhcp.option.dhcp" {
			t.Fatalf("%s: %s occurs twice", from, f.Name)
		}
	}
}

// TestKindMatcher: what is left of an expression for a kind, and its matcher, say what the expression says.
func TestKindMatcher(t *testing.T) {
	var frames []*Packet
	var seen [Kinds]int
	for _, c := range plainFrames() {
		p := &Packet{}
		if p.Decode(c.bytes, &Meta{Iface: "eth0", Mark: 7}); p.Kind() != KindOther && seen[p.Kind()] < 400 {
			seen[p.Kind()]++
			frames = append(frames, p)
		}
	}
	held := map[string]int{}
	for _, text := range []string{
		"arp", "!arp", "arp || dhcp", "arp && dhcp", "!(arp && dhcp)", "!(arp || dhcp)", "vlan.id == 5", "!(vlan.id == 5)", "vlan.id != 5",
		"arp.src.hw_mac == eth.src", "arp.src.hw_mac != eth.src", "eth.src == arp.src.hw_mac && arp.opcode == 1", "eth.src == dhcp.hw.mac_addr",
		"dhcp.hw.mac_addr != eth.src", "dhcp.option.dhcp == 1", "dhcp.option.dhcp != 1 || arp.opcode == 2", "arp.opcode >= 2", "arp.opcode < 2 && eth.src == arp.src.hw_mac",
		"arp.src.proto_ipv4 == 192.0.2.0/24", "arp.src.proto_ipv4 != 192.0.2.0/24", "eth.dst.ig", "eth.dst.ig == 1 && !vlan", "ip.ttl == 64", "udp.srcport == 68 && udp.dstport == 67",
		"eth.type == 0x0806", "eth.type == 0x0800 && dhcp.type == 1", "dhcp.option.hostname == \"hello\"", "dhcp.option.hostname == \"no\" || vlan", "frame[12:2] == 08:06",
		"arp.src.proto_ipv4 in {192.0.2.1, 192.0.2.2} && !(eth.src == arp.src.hw_mac)", "iface.mark == 7", "iface.mark == 8 || arp.isgratuitous", "sender.uid == 0", "!(sender.uid == 0)",
		"ip.addr == 255.255.255.255", "dhcp.ip.client == dhcp.ip.your", "arp.dst.proto_ipv4 == arp.src.proto_ipv4", "ip.len > udp.length", "eth.len", "arp.opcode == dhcp.type",
	} {
		e, err := Parse(text, nil)
		if err != nil {
			t.Fatal(text, err)
		}
		for _, p := range frames {
			want := Eval(e, p, nil)
			left, always, never := For(e, p.Kind())
			m := NewKindMatcher(left, p.Kind())
			if always && !want || never && want || !never && (m.Match(p, nil) != want || m.Twins && m.TwinsEqual(p) && !want) {
				t.Fatalf("%s: %t; left %v, always %t, never %t, matcher %t\n%x", text, want, left, always, never, m.Match(p, nil), p.b)
			}
			if want {
				held[text]++
			}
		}
	}
	if len(held) < 25 {
		t.Errorf("only %d expressions were ever true", len(held))
	}
}
