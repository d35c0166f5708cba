package filter

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sets are the named sets that the tests' expressions may use.
var sets = SetTypes{"vips": {TypeIPv4}, "leases": {TypeMAC, TypeIPv4}, "ouis": {TypeBytes}}

// sameField compares fields by identity: each is one row of the catalogue.
var sameField = cmp.Comparer(func(a, b *Field) bool { return a == b })

// valid are expressions and how they are printed; "" means as written.
var valid = []struct{ src, printed string }{
	{"arp", ""},
	{"arp.opcode == 2 && arp.src.proto_ipv4 in @vips && arp.src.hw_mac == eth.src", ""},
	{"(arp.src.hw_mac, arp.src.proto_ipv4) in @leases", ""},
	{"(arp.src.hw_mac, arp.src.proto_ipv4) not in @leases", ""},
	{"not (arp.src.hw_mac,arp.src.proto_ipv4) in @leases", "(arp.src.hw_mac, arp.src.proto_ipv4) not in @leases"},
	{"eth.src[0:3] in @ouis", ""},
	{"udp.srcport == 67 && dhcp.option.dhcp in {2, 5, 6}", ""},
	// operators and their words
	{"udp.srcport eq 67 and udp.srcport ne 68", "udp.srcport == 67 && udp.srcport != 68"},
	{"ip.ttl lt 1 or ip.ttl le 2 or ip.ttl gt 3 or ip.ttl ge 4", "ip.ttl < 1 || ip.ttl <= 2 || ip.ttl > 3 || ip.ttl >= 4"},
	{"udp.port any_eq 67 || udp.port all_ne 67", "udp.port == 67 || udp.port != 67"},
	{"ip.ttl==64&&udp||!arp", "ip.ttl == 64 && udp || !arp"},
	// precedence and parentheses
	{"arp || ip && udp", ""},
	{"(arp || ip) && udp", ""},
	{"((arp) || (ip && (udp)))", "arp || ip && udp"},
	{"arp || (ip || udp)", "arp || ip || udp"},
	{"not arp and ip", "!arp && ip"},
	{"not (arp and ip)", "!(arp && ip)"},
	{"not ip.ttl == 64", "!(ip.ttl == 64)"},
	{"!!arp", ""},
	{"udp.port ! in {67}", "udp.port not in {67}"},
	{"!(udp.port not in {67})", "!udp.port not in {67}"},
	// numbers
	{"udp.port in {67, 0x43, 0103, 0b1000011, 60..70}", ""},
	{"eth.dst.ig == 1 || eth.dst.ig == TRUE || eth.dst.ig != False || eth.dst.ig == true", ""},
	// masks
	{"udp.port & 1", "udp.port & 0x1"},
	{"udp.port bitwise_and 0x43 == 67", "udp.port & 0x43 == 67"},
	{"(udp.port & 0x43) == 67", "udp.port & 0x43 == 67"},
	{"(udp.port) & 3", "udp.port & 0x3"},
	{"ip.src & 255.0.0.0 == 10.0.0.0", ""},
	{"eth.src & 01:00:00:00:00:00", ""},
	{"eth.src[0] & 02", ""},
	{"eth.src[0] & 0x0f == 02", "eth.src[0] & 0f == 02"},
	{"frame[12:2] & 0f:ff == 01:00", ""},
	// addresses
	{"eth.src == 02:00:00:00:00:01 || eth.src == 02-00-00-00-00-01 || eth.src == 02.00.00.00.00.01", ""},
	{"eth.src == 0200.0000.0001 || eth.src == 020000000001 || eth.src == :02:00:00:00:00:01", ""},
	{"ip.src == 192.0.2.1 || ip.src == 10.1.2.3/8 || ip.src in {0.0.0.0/0, 192.0.2.1..192.0.2.9}", ""},
	{"ipv6.src == ::1 || ipv6.src != fe80::/10 || ipv6.src in {::ffff:192.0.2.1, 2001:db8::1..2001:db8::9}", ""},
	// slices
	{"eth.src[0:3] == 02:00:00", ""},
	{"eth.src[:3] == 02-00-00", "eth.src[0:3] == 02-00-00"},
	{"eth.src[3:] == 02.00.00", ""},
	{"eth.src[:] == 02.00.00.00.00.00", "eth.src[0:] == 02.00.00.00.00.00"},
	{"eth.src[1-2] == 0200", "eth.src[1:2] == 0200"},
	{"eth.src[-2--1] == 02:00", "eth.src[-2:2] == 02:00"},
	{"eth.src[ -1 ] == b", "eth.src[-1] == b"},
	{"eth.src[0:1] == 0x42", "eth.src[0] == 0x42"},
	{"frame[12:2]", ""},
	{"eth.src[0:2] == eth.dst[-2:]", ""},
	{"eth.src == frame[6:6]", ""},
	{"eth.src[0:3] in {02:00:00, 00:00:00..00:0b:82}", ""},
	// strings
	{`dhcp.option.hostname == "a \"b\" \\ \x41\101\u00e9\n"`, ""},
	{`dhcp.option.hostname == r"a\b"`, ""},
	{`dhcp.option.hostname in {abc, "x".."y"}`, ""},
	{`frame[0:2] == "ab"`, ""},
}

func TestParseAndPrint(t *testing.T) {
	for _, tt := range valid {
		x, err := Parse(tt.src, sets)
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		want := tt.printed
		if want == "" {
			want = tt.src
		}
		if got := x.String(); got != want {
			t.Errorf("%s: printed as %s", tt.src, got)
		}
		checkRoundTrip(t, x)
	}
}

// checkRoundTrip holds that what x prints parses to x again.
func checkRoundTrip(t *testing.T, x Expr) {
	t.Helper()
	s := x.String()
	y, err := Parse(s, sets)
	if err != nil {
		// What is printed may be longer than what was read.
		if len(s) <= MaxLength {
			t.Errorf("%s: %v", s, err)
		}
		return
	}
	if d := cmp.Diff(x, y, sameField); d != "" {
		t.Errorf("%s: %s", s, d)
	}
}

func TestParseStructure(t *testing.T) {
	ttl, src, mac := Ref{Field: Lookup("ip.ttl")}, Ref{Field: Lookup("ip.src")}, Ref{Field: Lookup("eth.src")}
	num := func(n uint64, text string) Const {
		return Const{Type: TypeUint, Value: Value{Num: n}, Prefix: Full, Text: text}
	}
	net := Const{Type: TypeIPv4, Value: Value{Num: 0x0a000000}, Prefix: 8, Text: "10.1.2.3/8"}
	for _, tt := range []struct {
		src  string
		want Expr
	}{
		{"ip.ttl", &Present{ttl}},
		{"ip.ttl & 3", &Test{Ref{Field: ttl.Field, Mask: 3}}},
		{"ip.ttl & 3 == 2", &Compare{Field: Ref{Field: ttl.Field, Mask: 3}, Const: num(2, "2")}},
		{"ip.ttl in {0x40, 1..2}", &In{Fields: []Ref{ttl}, Elements: []Range{{num(64, "0x40"), num(64, "0x40")}, {num(1, "1"), num(2, "2")}}}},
		{"ip.src != 10.1.2.3/8", &Compare{Field: src, Op: Ne, Const: net}},
		{"(eth.src, ip.src) not in @leases", &Not{&In{Fields: []Ref{mac, src}, Set: "leases"}}},
		{"eth.src[1] & 02", &Test{Ref{Field: mac.Field, Slice: &Slice{1, 1}, Mask: 2}}},
		{"ip.ttl == 1 || ip.ttl && ip.src", &Or{[]Expr{
			&Compare{Field: ttl, Const: num(1, "1")}, &And{[]Expr{&Present{ttl}, &Present{src}}}}}},
	} {
		x, err := Parse(tt.src, sets)
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		if d := cmp.Diff(tt.want, x, sameField); d != "" {
			t.Errorf("%s: %s", tt.src, d)
		}
	}
}

func TestParseLimits(t *testing.T) {
	nested := func(n int, open, close string) string {
		return strings.Repeat(open, n) + "arp" + strings.Repeat(close, n)
	}
	for _, tt := range []struct{ name, src, msg string }{
		{"as deep as may be", nested(MaxDepth, "(", ")"), ""},
		{"as many negations as may be", nested(MaxDepth, "!", ""), ""},
		{"one too deep", nested(MaxDepth+1, "(", ")"), "the expression is more than 1000 deep"},
		{"one negation too many", nested(MaxDepth+1, "!", ""), "the expression is more than 1000 deep"},
		{"only opened", strings.Repeat("(", MaxLength), "the expression is more than 1000 deep"},
		{"a long chain", strings.Repeat("arp||", MaxLength/5-1) + "arp", ""},
		{"too long", strings.Repeat(" ", MaxLength) + "arp", "the expression is 65539 bytes long, the limit is 65536"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, err := Parse(tt.src, nil)
			var e *Error
			switch {
			case tt.msg == "" && err != nil:
				t.Error(err)
			case tt.msg == "":
				checkRoundTrip(t, x)
			case !errors.As(err, &e) || e.Msg != tt.msg:
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	arp := []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x02")
	for _, tt := range valid {
		f.Add(tt.src, arp)
	}
	for _, tt := range invalid {
		f.Add(tt.src, arp)
	}
	f.Fuzz(func(t *testing.T, src string, frame []byte) {
		x, err := Parse(src, sets)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Len < 1 || e.Offset < 0 || e.Offset > len(src) || e.Msg == "" {
				t.Errorf("%q: bad error %#v", src, err)
			}
			return
		}
		checkRoundTrip(t, x)
		var p Packet
		p.Decode(frame, nil)
		Eval(x, &p, Sets{"vips": setOf{}, "leases": setOf{}})
	})
}
