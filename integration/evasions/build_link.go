package evasions

import "encoding/binary"

// EtherTypes, and what else names a payload on the link.
const (
	typeIPv4, typeARP, typeRARP, typeLLDP = 0x0800, 0x0806, 0x8035, 0x88cc
	tpidQ, tpidAD, tpid9100               = 0x8100, 0x88a8, 0x9100

	sapSNAP, sapSTP, sapIP = 0xaa, 0x42, 0x06
	controlUI              = 0x03 // unnumbered information

	ouiEtherType, oui8021H = 0x000000, 0x0000f8
)

// VLAN is the identifier of the VLAN that the policies allow.
const VLAN = 7

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// cat joins bytes.
func cat(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func be16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

// link is a frame without its addresses: a type or length, and what follows it.
type link []byte

// ethertype is a payload behind its EtherType.
func ethertype(typ int, payload []byte) link { return cat(be16(typ), payload) }

// tag puts a VLAN tag in front of l.
func (l link) tag(tpid, tci int) link { return cat(be16(tpid), be16(tci), l) }

// llc is a payload behind an 802.3 length that is right, and an LLC header.
func llc(dsap, ssap, control byte, payload []byte) link {
	return cat(be16(3+len(payload)), []byte{dsap, ssap, control}, payload)
}

// snap is l behind a length and LLC/SNAP: its EtherType is SNAP's protocol.
func (l link) snap(oui int) link {
	return llc(sapSNAP, sapSNAP, controlUI, cat([]byte{byte(oui >> 16), byte(oui >> 8), byte(oui)}, l))
}

// length overwrites the 802.3 length of l.
func (l link) length(n int) link { return cat(be16(n), l[2:]) }

// frame is l between two stations, padded to Ethernet's 60 bytes.
func (l link) frame(dst, src MAC) []byte { return pad(l.short(dst, src)) }

// short is l without padding.
func (l link) short(dst, src MAC) []byte { return cat(dst[:], src[:], l) }

func pad(b []byte) []byte { return append(b, make([]byte, max(0, 60-len(b)))...) }
