package firewall

import "encoding/binary"

// writable are the fields that `set` may change: where they are after a
// plain, untagged Ethernet header.
var writable = map[string]struct {
	off, n    int
	etherType uint16 // 0: any
}{
	"eth.dst": {0, 6, 0}, "eth.src": {6, 6, 0},
	"arp.src.hw_mac": {22, 6, 0x0806}, "arp.src.proto_ipv4": {28, 4, 0x0806},
	"arp.dst.hw_mac": {32, 6, 0x0806}, "arp.dst.proto_ipv4": {38, 4, 0x0806},
}

// Rewrite carries out an ActionSet on b, in place. It reports whether every
// field was there to be written; if not, b is unchanged. None of the fields is
// covered by a checksum.
func Rewrite(b []byte, set []Assignment) bool {
	for _, a := range set {
		w, ok := writable[a.Field.Name]
		if !ok || len(b) < w.off+w.n || len(b) < 14 ||
			w.etherType != 0 && (binary.BigEndian.Uint16(b[12:]) != w.etherType || len(b) < 42 || b[18] != 6 || b[19] != 4) {
			return false
		}
	}
	for _, a := range set {
		w := writable[a.Field.Name]
		for i := range w.n {
			b[w.off+i] = byte(a.Value.Num >> (8 * (w.n - 1 - i)))
		}
	}
	return true
}
