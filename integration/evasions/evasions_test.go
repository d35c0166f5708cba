package evasions

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// rows are the tables' rows; "" marks the one that no single frame makes: see
// TestRates.
var rows = map[string][]string{
	TableARP: {"gratuitous request", "sender hardware address is not eth.src", "probe for a victim's address",
		"reply from the old owner", "proxy ARP", "sizes and types", "RARP", "opcodes"},
	TableEncapsulation: {"VLAN tags", "802.3 and LLC/SNAP", "IPv4 options", "fragments", "UDP and IP lengths", "checksums"},
	TableDHCP: {"server's answers", "option 53 hidden", "option 52", "option 53 twice, or not one byte",
		"options past the end", "chaddr", "client identifier", "RELEASE and DECLINE",
		"giaddr and option 82 from a client", "hops, giaddr and link selection", "", "server identifier of a SELECT", "GSO"},
	TableBeyond: {"LLC and tags", "headers that are not read", "authentication header"},
}

// elsewhere is a host whose addresses are all others than NewHost's.
func elsewhere() Host {
	h := NewHost()
	for _, m := range []*MAC{&h.MAC, &h.VirtualMAC, &h.Guest, &h.PeerMAC} {
		m[5] ^= 0x80
	}
	for _, a := range []*netip.Addr{&h.IP, &h.VIP, &h.Lost, &h.PeerIP, &h.Server, &h.OtherServer, &h.OtherRelay} {
		b := a.As4()
		*a = netip.AddrFrom4([4]byte{10, 77, 3, b[3]})
	}
	h.Link = netip.MustParsePrefix("10.77.2.0/23")
	return h
}

func parse(t testing.TB, p *Policy) *firewall.Policy {
	t.Helper()
	parsed, warnings, err := firewall.Parse(p.Name+".yaml", p.YAML)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("%v%v", err, warnings)
	}
	return parsed
}

// enforce puts a policy in force, its live elements included.
func enforce(t testing.TB, p *Policy) *firewall.Firewall {
	t.Helper()
	parsed := parse(t, p)
	f, err := firewall.New(parsed)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Live {
		add(t, f, e)
	}
	return f
}

// element reads e by the declaration of its set.
func element(t testing.TB, f *firewall.Firewall, e Element) firewall.Element {
	t.Helper()
	for _, s := range f.Policy().Sets {
		if s.Name == e.Set {
			el, err := s.Element(e.Parts...)
			if err != nil {
				t.Fatal(err)
			}
			return el
		}
	}
	t.Fatalf("no set %q", e.Set)
	return firewall.Element{}
}

func add(t testing.TB, f *firewall.Firewall, e Element) {
	t.Helper()
	el := element(t, f, e)
	f.UpdateSet(e.Set, func(s *firewall.Set) { s.Add(el) })
}

// classify decides at an instant in nanoseconds, by both evaluators.
func classify(t testing.TB, f *firewall.Firewall, b Frame, at int64) firewall.Decision {
	t.Helper()
	var p filter.Packet
	p.Decode(b.Bytes, &filter.Meta{GSOSize: b.GSOSize, Time: at})
	twin := p // effects are kept in the packet
	want, _ := f.Explain(&twin)
	d := f.Classify(&p)
	if !d.Equal(&want) {
		t.Errorf("Classify: %v by %s (%v); the linear walk: %v by %s (%v)\n%s", d.Verdict, d.RuleName(), d.Reason,
			want.Verdict, want.RuleName(), want.Reason, p.Summary())
	}
	return d
}

func TestEvasions(t *testing.T) {
	for name, h := range map[string]Host{"written for": NewHost(), "elsewhere": elsewhere()} {
		firewalls := map[*Policy]*firewall.Firewall{}
		for _, c := range Cases(h) {
			t.Run(name+"/"+c.String(), func(t *testing.T) {
				f := firewalls[c.Policy]
				if f == nil {
					f = enforce(t, c.Policy)
					firewalls[c.Policy] = f
				}
				check(t, f, "forged", c.Forged, firewall.Drop)
				check(t, f, "honest", c.Honest, firewall.Accept)
			})
		}
	}
}

// check holds the decision on a frame against what must become of it.
func check(t *testing.T, f *firewall.Firewall, which string, b Frame, want firewall.Verdict) {
	t.Helper()
	if d := classify(t, f, b, 1); d.Verdict != want || d.RuleName() != b.Rule || d.Reason != b.Reason {
		t.Errorf("%s: %v by %s (%v), want %v by %s (%v)\n%x", which, d.Verdict, d.RuleName(), d.Reason, want, b.Rule, b.Reason, b.Bytes)
	}
}

// TestRows counts: every row has its cases, and no case is elsewhere.
func TestRows(t *testing.T) {
	want := map[string]int{TableARP: 8, TableEncapsulation: 6, TableDHCP: 13, TableBeyond: 3}
	cases, names := map[string]int{}, map[string]bool{}
	for _, c := range Cases(NewHost()) {
		cases[c.Table+"/"+c.Row]++
		if names[c.Policy.Name+c.String()] {
			t.Errorf("%s stands twice", &c)
		}
		names[c.Policy.Name+c.String()] = true
	}
	for table, n := range want {
		if len(rows[table]) != n {
			t.Errorf("%s: %d rows, want %d", table, len(rows[table]), n)
		}
		for _, row := range rows[table] {
			if row != "" && cases[table+"/"+row] == 0 {
				t.Errorf("%s: no case for %q", table, row)
			}
			delete(cases, table+"/"+row)
		}
	}
	for row := range cases {
		t.Errorf("%s is in no table", row)
	}
	t.Logf("%d cases", len(names))
}

// TestTheTestCanFail: with no policy to speak of every forged frame passes, so that
// what refuses them is the policy and not the test.
func TestTheTestCanFail(t *testing.T) {
	lax := enforce(t, &Policy{Name: "lax", YAML: []byte("policy: lax\nrules: []\nmalformed: match\ndefault: accept\n")})
	strict := enforce(t, &Policy{Name: "strict", YAML: []byte("policy: strict\nrules: []\n")})
	for _, c := range Cases(NewHost()) {
		if d := classify(t, lax, c.Forged, 1); d.Verdict != firewall.Accept {
			t.Errorf("%s: an empty policy that accepts: %v (%v)", &c, d.Verdict, d.Reason)
		}
		if d := classify(t, strict, c.Honest, 1); d.Verdict != firewall.Drop {
			t.Errorf("%s: an empty policy that drops: %v", &c, d.Verdict)
		}
	}
}

// TestEveryRuleRefuses takes one rule at a time out of each policy: the forged
// frames that it refused must then be decided otherwise, and each refusing rule
// must have some.
func TestEveryRuleRefuses(t *testing.T) {
	by := map[string][]Case{}
	for _, c := range Cases(NewHost()) {
		by[c.Policy.Name+"/"+c.Forged.Rule] = append(by[c.Policy.Name+"/"+c.Forged.Rule], c)
	}
	for _, p := range Policies(NewHost()) {
		if p.Name == "guests" {
			continue // TestRates
		}
		for i, r := range parse(t, p).Rules {
			if r.Action != firewall.ActionDrop {
				continue
			}
			cases := by[p.Name+"/"+r.Name]
			if len(cases) == 0 {
				t.Errorf("%s: rule %s refuses nothing", p.Name, r.Name)
			}
			without := *p
			without.YAML = []byte(cut(string(p.YAML), i))
			f := enforce(t, &without)
			for _, c := range cases {
				if d := classify(t, f, c.Forged, 1); d.RuleName() == r.Name {
					t.Errorf("%s: %s still decides", p.Name, r.Name)
				}
			}
		}
	}
}

// cut takes the i-th rule out of a policy file.
func cut(yaml string, i int) string {
	const start = "  - name: "
	parts := strings.Split(yaml, start)
	rest := ""
	if n := strings.Index(parts[i+1], "\ndefault:"); n >= 0 {
		rest = parts[i+1][n+1:]
	}
	return strings.Join(append(parts[:i+1:i+1], parts[i+2:]...), start) + rest
}

// TestAddressMoves: the old owner may answer until the virtual address is taken
// from its set, and the new one from then on.
func TestAddressMoves(t *testing.T) {
	h := NewHost()
	f := enforce(t, policies(h).node)
	vip, lost := by("reply", own(h, h.VIP)), by("no-foreign-reply", own(h, h.Lost))
	check(t, f, "owned", vip, firewall.Accept)
	check(t, f, "not owned", lost, firewall.Drop)
	gone := element(t, f, Element{"vips", []string{h.VIP.String()}})
	f.UpdateSet("vips", func(s *firewall.Set) { s.Delete(gone) })
	add(t, f, Element{"vips", []string{h.Lost.String()}})
	check(t, f, "lost", by("no-foreign-reply", vip.Bytes), firewall.Drop)
	check(t, f, "won", by("reply", lost.Bytes), firewall.Accept)
}

// TestLeaseEnds: a lease that is over is nobody's to release.
func TestLeaseEnds(t *testing.T) {
	h := NewHost()
	f := enforce(t, policies(h).dhcpHost)
	var honest Frame
	for _, c := range foreignLeases(h, policies(h)) {
		if honest = c.Honest; strings.HasPrefix(c.Name, "RELEASE") {
			break
		}
	}
	check(t, f, "own", honest, firewall.Accept)
	over := element(t, f, Element{"leases", []string{h.MAC.String(), h.IP.String()}})
	over.Deadline = 1
	f.UpdateSet("leases", func(s *firewall.Set) { s.Add(over) })
	check(t, f, "expired", by("no-foreign-release", honest.Bytes), firewall.Drop)
}

// TestNames: a policy for one host names no address of another.
func TestNames(t *testing.T) {
	for _, p := range Policies(elsewhere()) {
		for _, name := range NewHost().names() {
			if strings.Contains(string(p.YAML), name) {
				t.Errorf("%s still has %s", p.Name, name)
			}
		}
	}
}
