package filter

import (
	"errors"
	"testing"
)

// invalid are mistakes: where they are, and what is said of them.
var invalid = []struct {
	src      string
	off, len int
	want     string
}{
	// words and structure
	{"", 0, 1, "the expression is empty; leave out `match` to match every frame"},
	{"arp &&", 6, 1, "the expression ends too early"},
	{"(arp", 0, 1, "the parenthesis is not closed; write ) after it"},
	{"arp)", 3, 1, `")" is unexpected here`},
	{"arp ip", 4, 2, `"ip" is unexpected here; join tests with && or ||`},
	{"arp AND ip", 4, 3, `"AND" is unexpected here; operators are lower-case: and`},
	{"NOT arp", 0, 3, `"NOT" is unexpected here; operators are lower-case: not`},
	{"udp.port = 67", 9, 1, `"=" is not part of the language; write == to compare`},
	{"arp | ip", 4, 1, `"|" is not part of the language; write || or or`},
	{"arp é", 4, 2, `"é" is not part of the language`},
	{"arp \xff", 4, 1, `"\xff" is not part of the language`},
	{"67 == udp.port", 0, 2, `"67" is no field; the field goes on the left`},
	{`"a" == dhcp.option.hostname`, 0, 3, `"a" in quotes is no field; the field goes on the left`},
	{"1 < ip.ttl < 9", 0, 1, `"1" is no field; the field goes on the left`},
	{"ip.ttl < udp.port < 9", 18, 1, "a chain of comparisons is not supported; write a < b && b < c"},
	{"(arp && ip) == 1", 12, 2, `"==" is unexpected here`},
	{"udp.prt == 67", 0, 7, `unknown field "udp.prt"; did you mean udp.port?`},
	// refused by name
	{"eth contains 01", 4, 8, `"contains" is not supported: it searches the whole frame, which cannot be decided in bounded time in the kernel; compare a field, or a slice such as frame[12:2]`},
	{`dhcp.option.hostname matches "a"`, 21, 7, `"matches" is not supported: it searches the whole frame, which cannot be decided in bounded time in the kernel; compare a field, or a slice such as frame[12:2]`},
	{`dhcp.option.hostname ~ "a"`, 21, 1, `"~" is not supported: it searches the whole frame, which cannot be decided in bounded time in the kernel; compare a field, or a slice such as frame[12:2]`},
	{"len(eth.src) == 6", 0, 3, `"len" is not supported: there are no functions, for they cannot all be decided in bounded time in the kernel; compare the field itself`},
	{"udp.port + 1 == 68", 9, 1, `"+" is not supported: there is no arithmetic; compare with the value itself`},
	{"udp.port - 1 == 68", 9, 1, `"-" is not supported: there is no arithmetic; compare with the value itself`},
	{"any udp.port == 67", 0, 3, `"any" is not supported: there are no quantifiers; == and the orderings are true if any occurrence compares true, != if all differ`},
	{"udp.port === 67", 9, 3, `"===" is not supported: there are no strict operators; write == (true if any occurrence is equal) or != (true if all differ)`},
	{"arp xor ip", 4, 3, `"xor" is not supported: there is no exclusive or; write (a || b) && !(a && b)`},
	{"ip#1", 2, 1, `"#" is not supported: only the outermost frame counts, so that there are no layers to choose from; leave out the number of the layer`},
	{"ip.ttl == 'A'", 10, 1, `"'" is not supported: there are no character constants; write the number, or a string in double quotes`},
	{"ip.ttl == ${ip.ttl}", 10, 1, `"$" is not supported: there are no references to fields of other frames; write the value itself`},
	{"@ip.ttl == 40", 0, 7, "a set stands on the right of in, and a field's raw bytes have no name here; write field in @ip.ttl, or a slice such as frame[12:2]"},
	{"{udp.port & 1} == 1", 0, 1, `"{" is unexpected here; braces hold the elements after in; group with ( )`},
	// numbers and booleans
	{"ip.ttl == 256", 10, 3, "256 is out of range for ip.ttl, which is 0 to 255"},
	{"vlan.id == 4096", 11, 4, "4096 is out of range for vlan.id, which is 0 to 4095"},
	{"ip.ttl == -1", 10, 2, "-1 is out of range for ip.ttl, which is 0 to 255"},
	{"ip.ttl == 99999999999999999999", 10, 20, "99999999999999999999 is out of range for ip.ttl, which is 0 to 255"},
	{"ip.ttl == 08", 10, 2, `"08" is not a number`},
	{"ip.ttl == 1_0", 10, 3, `"1_0" is not a number`},
	{"ip.ttl == 0x40or arp", 10, 6, `"0x40or" is not a number`},
	{"arp.opcode == request", 14, 7, `"request" is neither a number nor a field; names of values are not supported: write the number`},
	{"udp.srcport == udp.dstprt", 15, 10, `"udp.dstprt" is neither a number nor a field; did you mean udp.dstport?`},
	{`udp.port == "67"`, 12, 4, "udp.port is of type number, not a string; write the value without quotes; names of values are not supported"},
	{"eth.dst.ig == 2", 14, 1, `"2" is not a boolean; write 1, 0, true or false`},
	// addresses and bytes
	{"eth.src == 10.0.0.0/8", 11, 10, `"10.0.0.0/8" is not a MAC address; write it as 02:00:00:00:00:01; for its first bytes use a slice`},
	{"eth.src == 02:00:00", 11, 8, `"02:00:00" is not a MAC address; write it as 02:00:00:00:00:01; for its first bytes use a slice`},
	{"ip.src == 02:00:00:00:00:01", 10, 17, `"02:00:00:00:00:01" is not an IPv4 address; write it as 192.0.2.1 or 192.0.2.0/24`},
	{"ip.src == ::1", 10, 3, `"::1" is not an IPv4 address; write it as 192.0.2.1 or 192.0.2.0/24`},
	{"ip.src == 010.0.0.1", 10, 9, `"010.0.0.1" is not an IPv4 address; write it as 192.0.2.1 or 192.0.2.0/24`},
	{"ip.src == 10.0.0.0/33", 10, 11, "the prefix length is not 0 to 32; write it as 192.0.2.1 or 192.0.2.0/24"},
	{"ip.src < 10.0.0.0/8", 7, 1, "a prefix has no order; write in {first..last}"},
	{"ipv6.src == 192.0.2.1", 12, 9, `"192.0.2.1" is not an IPv6 address; write it as 2001:db8::1 or 2001:db8::/32`},
	{"ipv6.src == fe80::/129", 12, 10, "the prefix length is not 0 to 128; write it as 2001:db8::1 or 2001:db8::/32"},
	{"frame[12:2] == 08", 15, 2, "frame[12:2] has 2 bytes, the constant has 1"},
	{`frame[12:2] == "abc"`, 15, 5, "frame[12:2] has 2 bytes, the constant has 3"},
	{"frame[12:2] == 0x0806", 15, 6, `"0x0806" is not a byte string; write it as 02:00:00`},
	{"frame[12:2] == 08:", 15, 3, `"08:" is not a byte string; write it as 02:00:00`},
	// fields against fields
	{"ip.src == eth.src", 0, 17, "ip.src (ipv4) and eth.src (mac) cannot be compared"},
	{"eth.type == arp", 0, 15, "eth.type (number) and arp (protocol) cannot be compared"},
	{"dhcp.option.type == dhcp.option.type", 0, 36, "dhcp.option.type and dhcp.option.type may both occur any number of times; compare each with a field that does not"},
	// slices
	{"vlan.id[0] == 0", 7, 3, "vlan.id (number) has no slices; use a mask: vlan.id & 0xff, or a slice of the frame"},
	{"eth.src[0:0]", 7, 5, "the slice's length is not positive; write [offset:length]"},
	{"eth.src[2-1]", 7, 5, "the slice ends before it begins; write [first-last]"},
	{"eth.src[1--1]", 7, 6, "the slice's length depends on the field's; count both ends from the same side"},
	{"eth.src[]", 7, 2, "the slice has a bad bound; write [offset:length], [first-last] or [index]"},
	{"eth.src[99999999999:1]", 7, 15, "the slice has a bad bound; write [offset:length] with numbers of at most 65535"},
	{"eth.src[0:1,5]", 7, 7, "a list of slices is not supported; compare each slice by itself and join them with &&"},
	{"eth.src[0:2][1]", 12, 3, "a slice of a slice is not supported; add up the offsets"},
	{"eth.src[0:2", 7, 1, "the slice is not closed; write ] after it"},
	// masks
	{"ip.ttl & 256", 9, 3, "256 is out of range for ip.ttl, which is 0 to 255"},
	{"ip.ttl & 0", 9, 1, "a mask of zero never matches"},
	{"ip.ttl & 1 & 2", 11, 1, "a second mask is not supported; write one mask"},
	{"ip.ttl & ip.ttl", 9, 6, "a field cannot be a mask; write a constant"},
	{"ip.ttl == 1 & 1", 12, 1, "only a field can be masked; mask the constant by hand"},
	{"ip.src & 10.0.0.0/8", 9, 10, "a prefix cannot be a mask; write == 10.0.0.0/8"},
	{"eth.dst.ig & 1", 11, 1, "eth.dst.ig (boolean) cannot be masked"},
	{"ipv6.src & ffff::", 9, 1, "ipv6.src (ipv6) cannot be masked; mask a slice of it, such as ipv6.src[0:4]"},
	{"frame[0:] & 01", 10, 1, "only a slice of 1 to 8 bytes can be masked; write [0:length]"},
	{"frame[0:2] & 01", 13, 2, `"01" is not a byte string of 2 bytes; write it as 02:00:00`},
	// sets
	{"udp.port in {}", 13, 1, `expected a constant (number), found "}"`},
	{"udp.port in {67,}", 16, 1, `expected a constant (number), found "}"`},
	{"udp.port in {67 68}", 16, 2, `expected "," or "}", found "68"`},
	{"udp.port in {67", 15, 1, `expected "," or "}", found the end of the expression`},
	{"udp.port in (67, 68)", 12, 1, "the elements of a set stand in braces; write {a, b, c..d}"},
	{"udp.port in {udp.srcport}", 13, 11, "a field cannot be an element of a set; write a comparison and ||"},
	{"udp.port in {68..67}", 13, 6, "the range ends before it begins; write the lower bound first"},
	{"ip.src in {10.0.0.0/8..11.0.0.0/8}", 11, 22, "a prefix cannot bound a range; write the first and the last address"},
	{"udp.port == {67}", 9, 2, "a list cannot be compared; write in {…}"},
	{"ip.src == @vips", 7, 2, "a set cannot be compared; write in @vips"},
	{"ip.src in @vip", 10, 4, `unknown set "vip"; there are @leases, @ouis, @vips`},
	{"ip.src in @", 10, 1, "@ without the name of a set; write in @name"},
	{"eth.src in @vips", 0, 16, "eth.src is of type mac, @vips holds the type ipv4 there"},
	{"(ip.src, eth.src) in @leases", 0, 28, "ip.src is of type ipv4, @leases holds the type mac there"},
	{"(eth.src, ip.src) in @vips", 0, 26, "@vips holds single values, not tuples of 2"},
	{"eth.src in @leases", 0, 18, "@leases holds tuples of 2, not single values"},
	{"(eth.src, ip.src) in {02:00:00:00:00:01}", 21, 1, "a tuple can only be looked up in a named set; write in @name"},
	{"(eth.src, eth.src, eth.src, eth.src, eth.src) in @leases", 37, 7, "a tuple has at most 4 fields"},
	{"(dhcp.option.type, dhcp.option.router) in @leases", 19, 18, "a second field of the tuple may occur any number of times, and so would the look-ups of one frame multiply; look up one of them alone"},
	// strings
	{`dhcp.option.hostname == "a`, 24, 1, `the string is not closed; write " at its end`},
	{`dhcp.option.hostname == "\q"`, 25, 2, `"\\q" is not an escape sequence; write \\ for a backslash, or r"…" for a string without escapes`},
	{`dhcp.option.hostname == "\777"`, 25, 4, `\777 is larger than 255; write \\ for a backslash, or r"…" for a string without escapes`},
	{`dhcp.option.hostname == "\x"`, 25, 2, `\x without digits; write \\ for a backslash, or r"…" for a string without escapes`},
	{`dhcp.option.hostname == "\ud800"`, 25, 6, `\ud800 is not a character; write \\ for a backslash, or r"…" for a string without escapes`},
}

func TestParseErrors(t *testing.T) {
	for _, tt := range invalid {
		_, err := Parse(tt.src, sets)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v is no *Error", tt.src, err)
			continue
		}
		if e.Offset != tt.off || e.Len != tt.len || e.Error() != tt.want {
			t.Errorf("%s:\n got %d, %d: %s\nwant %d, %d: %s", tt.src, e.Offset, e.Len, e, tt.off, tt.len, tt.want)
		}
	}
}
