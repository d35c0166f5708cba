package firewall

import (
	"fmt"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// TestNumbers: a shape of few numbers is looked up in a table, another one by its text, and both find
// what the reference evaluator finds.
func TestNumbers(t *testing.T) {
	for name, x := range map[string]struct {
		match string // of the i-th rule
		table bool
	}{
		"one number":    {"arp.src.proto_ipv4 == 192.0.2.%d", true},
		"prefixes":      {"arp.src.proto_ipv4 == 192.%d.0.0/16", true},
		"three":         {"arp.opcode == 1 && eth.src == 02:00:00:00:00:01 && arp.dst.proto_ipv4 == 192.0.2.%d", true},
		"occurs often":  {"eth.addr == 02:00:00:00:00:%02x", false},
		"no number":     {"dhcp.option.hostname == \"h%d\"", false},
		"four of these": {"arp.opcode == 1 && arp.hw.size == 6 && arp.proto.size == 4 && arp.src.proto_ipv4 == 192.0.2.%d", false},
	} {
		t.Run(name, func(t *testing.T) {
			var src strings.Builder
			src.WriteString("policy: p\nrules:\n")
			for i := range 200 {
				fmt.Fprintf(&src, "  - {name: r%d, match: '%s', verdict: accept}\n", i, fmt.Sprintf(x.match, i))
			}
			p, _, err := Parse("p.yaml", []byte(src.String()))
			if err != nil {
				t.Fatal(err)
			}
			prog := Compile(p)
			if len(prog.Shapes) != 1 || (prog.Shapes[0].numbers != nil) != x.table {
				t.Fatalf("%d shapes, table %v", len(prog.Shapes), prog.Shapes[0].numbers != nil)
			}
			fw, err := New(p)
			if err != nil {
				t.Fatal(err)
			}
			var pkt filter.Packet
			accepted := 0
			for i := range 256 {
				b := arpFrame(1, byte(i))
				b[29] = byte(i) // the second byte of the sender's address
				for _, f := range [][]byte{b, arpFrame(1, byte(i))} {
					pkt.Decode(f, nil)
					d := fw.Classify(&pkt)
					twin := pkt // effects are kept in the packet
					if want, _ := fw.Explain(&twin); !d.Equal(&want) {
						t.Fatalf("%x: %+v, want %+v", f, d, want)
					}
					if d.Verdict == Accept {
						accepted++
					}
				}
			}
			if x.table && accepted == 0 {
				t.Error("no frame was accepted")
			}
		})
	}
}
