package filter

import "testing"

func TestParseRange(t *testing.T) {
	for _, tt := range []struct {
		text, want string
		typ        Type
		bits       int
		lo, hi     uint64
	}{
		{"67", "67", TypeUint, 16, 67, 67},
		{"0x10..0x1f", "0x10..0x1f", TypeUint, 8, 16, 31},
		{"1 .. 2", "1..2", TypeUint, 8, 1, 2},
		{"192.0.2.16/28", "192.0.2.16/28", TypeIPv4, 0, 0xc0000210, 0xc0000210},
		{"192.0.2.1..192.0.2.9", "192.0.2.1..192.0.2.9", TypeIPv4, 0, 0xc0000201, 0xc0000209},
		{"02:00:00:00:00:01", "02:00:00:00:00:01", TypeMAC, 0, 0x020000000001, 0x020000000001},
		{"a..b", `"a..b"`, TypeString, 0, 0, 0},
		{"true", "true", TypeBool, 0, 1, 1},
	} {
		r, err := ParseRange(tt.text, tt.typ, tt.bits)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
		} else if r.String() != tt.want || r.Lo.Num != tt.lo || r.Hi.Num != tt.hi {
			t.Errorf("%s: %s, %#x to %#x", tt.text, r, r.Lo.Num, r.Hi.Num)
		}
	}
	for _, tt := range []struct {
		text string
		typ  Type
		want string
		off  int
	}{
		{"256", TypeUint, "256 is out of range for the value, which is 0 to 255", 0},
		{"9..1", TypeUint, "the range ends before it begins; write the lower bound first", 0},
		{"1.. 256", TypeUint, "256 is out of range for the value, which is 0 to 255", 4},
		{"192.0.2.300", TypeIPv4, `"192.0.2.300" is not an IPv4 address; write it as 192.0.2.1 or 192.0.2.0/24`, 0},
		{"", TypeMAC, `"" is not a MAC address; write it as 02:00:00:00:00:01; for its first bytes use a slice`, 0},
	} {
		_, err := ParseRange(tt.text, tt.typ, 8)
		if err == nil || err.Error() != tt.want || err.(*Error).Offset != tt.off {
			t.Errorf("%s: %v", tt.text, err)
		}
	}
}
