package firewall

import (
	"github.com/postern-fw/postern/proto/arp"
	"github.com/postern-fw/postern/proto/frame"
)

// writable are the fields that `set` may change: where they are in the Ethernet
// header, or in the ARP packet behind it.
var writable = map[string]struct {
	off, n int
	arp    bool
}{
	"eth.dst": {0, 6, false}, "eth.src": {6, 6, false},
	"arp.src.hw_mac": {8, 6, true}, "arp.src.proto_ipv4": {14, 4, true},
	"arp.dst.hw_mac": {18, 6, true}, "arp.dst.proto_ipv4": {24, 4, true},
}

const etherTypeARP = 0x0806

// Rewrite carries out an ActionSet on b, in place. It reports whether every
// field was there to be written; if not, b is unchanged. None of the fields is
// covered by a checksum.
func Rewrite(b []byte, set []Assignment) bool {
	var f frame.Frame
	f.Decode(b)
	var packet []byte // ARP's, behind whatever tags
	if f.EtherType == etherTypeARP {
		var p arp.Packet
		if p.Decode(f.Payload); p.Malformed == arp.CauseNone {
			packet = f.Payload
		}
	}
	for _, a := range set {
		w, ok := writable[a.Field.Name]
		if !ok || len(b) < frame.HeaderLen || w.arp && packet == nil {
			return false
		}
	}
	for _, a := range set {
		w := writable[a.Field.Name]
		to := b
		if w.arp {
			to = packet
		}
		for i := range w.n {
			to[w.off+i] = byte(a.Value.Num >> (8 * (w.n - 1 - i)))
		}
	}
	return true
}
