package filter

import (
	"bytes"
	"math/rand"
	"testing"
	"time"

	"github.com/postern-fw/postern/proto/dhcp"
)

// withOptions is a frame of a message with these bytes as its options.
func withOptions(options []byte) []byte {
	return dhcpFrame(append(dhcpMessage("", "", ""), options...))
}

// TestWalkAnyOrder: occurrences do not depend on what was looked at before.
func TestWalkAnyOrder(t *testing.T) {
	b := withOptions([]byte{53, 1, 1, 3, 8, 1, 2, 3, 4, 5, 6, 7, 8, 82, 6, 1, 1, 'a', 2, 1, 'b', 0,
		6, 4, 9, 9, 9, 9, 3, 4, 1, 1, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 1, 82, 3, 1, 1, 'c', 12, 9, 'c', 255})
	var fields []*Field
	want := map[*Field][]Value{}
	for i := range dhcpFields {
		f := &dhcpFields[i]
		fields = append(fields, f)
		for n := 0; f.Many; n++ {
			var fresh Packet
			fresh.Decode(b, nil)
			v, ok := f.Value(&fresh, n)
			if !ok {
				break
			}
			want[f] = append(want[f], v)
		}
	}
	var p Packet
	p.Decode(b, nil)
	rng := rand.New(rand.NewSource(1))
	for range 20000 {
		f := fields[rng.Intn(len(fields))]
		if !f.Many {
			continue
		}
		n := rng.Intn(len(want[f]) + 2)
		v, ok := f.Value(&p, n)
		if ok != (n < len(want[f])) || ok && (v.Num != want[f][n].Num || !bytes.Equal(v.Bytes, want[f][n].Bytes)) {
			t.Fatalf("%s, occurrence %d: %v, %v after other fields, %v alone", f.Name, n, v, ok, want[f])
		}
	}
}

// TestManyOptions: the longest message costs a walk, not one for each occurrence.
func TestManyOptions(t *testing.T) {
	const room = 65535 - 28 - 240
	options := append([]byte{53, 1, 1}, bytes.Repeat([]byte{12, 1, 'x'}, room/3-2)...)
	agent := []byte{53, 1, 1}
	for len(agent)+257 < room {
		agent = append(append(agent, 82, 254), bytes.Repeat([]byte{7, 0}, 127)...)
	}
	for _, c := range []struct {
		expr    string
		options []byte
	}{
		{"dhcp.option.hostname == \"y\"", options},
		{"dhcp.option.type == 13", options},
		{"dhcp.option.value == 00:00", options},
		{"dhcp.option.agent_information_option.suboption == 8", agent},
	} {
		e, err := Parse(c.expr, nil)
		if err != nil {
			t.Fatal(err)
		}
		var p Packet
		p.Decode(withOptions(append(c.options, 255)), nil)
		if !p.HasDHCP || p.Malformed != 0 && p.Malformed != DHCPCause(dhcp.CauseRepeated) {
			t.Fatalf("%s: %v", c.expr, p.Malformed)
		}
		start := time.Now()
		if Eval(e, &p, nil) {
			t.Errorf("%s matches", c.expr)
		}
		// What is cubic takes minutes, and the test's own time is up.
		t.Logf("%s: %v", c.expr, time.Since(start))
	}
}
