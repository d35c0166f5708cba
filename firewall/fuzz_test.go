package firewall

import (
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// FuzzPolicy: whatever the file holds, Parse says what is wrong or gives a
// policy that can be put in force and decides.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(policyOf(2)))
	f.Add([]byte("policy: p\nsets: {s: {type: [mac, ipv4], elements: [[02:00:00:00:00:01, 10.0.0.0/8]]}}\nrules:\n- name: a\n  match: >-\n    (arp.src.hw_mac,\n    arp.src.proto_ipv4) in @s\n  limit: {rate: 1/s, per: eth.src}\n  verdict: {mark: 1}\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		p, _, err := Parse("p", src)
		if err != nil {
			_ = err.Error()
			return
		}
		fw, err := New(p)
		if err != nil {
			t.Fatal(err)
		}
		var pkt filter.Packet
		pkt.Decode(arpFrame(2, 1), &filter.Meta{Time: 1})
		twin := pkt // effects are kept in the packet
		want, _ := fw.Explain(&twin)
		if got := fw.Classify(&pkt); !got.Equal(&want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
