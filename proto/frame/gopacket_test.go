package frame

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// seen is what both sides tell of a frame.
type seen struct {
	tags     []uint16
	etype    uint16
	proto    uint8
	src, dst uint16
	payload  []byte // of UDP
}

// viewed leads b through the views; ok is false if it is malformed.
func viewed(b []byte) (s seen, ok bool) {
	var f Frame
	if f.Decode(b); f.Malformed != CauseNone {
		return s, false
	}
	for _, t := range f.Tags() {
		s.tags = append(s.tags, t.TCI)
	}
	s.etype = f.EtherType
	var payload []byte
	switch s.etype {
	case 0x0800:
		var ip IPv4
		if ip.Decode(f.Payload); ip.Malformed != CauseNone {
			return s, false
		}
		if s.proto = ip.Proto; ip.Fragment() {
			return s, true
		}
		payload = ip.Payload
	case 0x86dd:
		var ip IPv6
		if ip.Decode(f.Payload); ip.Malformed != CauseNone {
			return s, false
		}
		if s.proto = ip.Proto; ip.MoreFrags || ip.FragOffset != 0 {
			return s, true
		}
		payload = ip.Payload
	}
	if s.proto != ProtoUDP {
		return s, true
	}
	var u UDP
	u.Decode(payload)
	s.src, s.dst, s.payload = u.SrcPort, u.DstPort, u.Payload
	return s, u.Malformed == CauseNone
}

// dissected asks gopacket; ok is false if it gives up, or finds what it and we
// read differently on purpose:
//   - gopacket does not know the tags 0x9100 to 0x9300, nor go behind 802.1H;
//   - it ends at an extension header it does not like, and at AH's payload;
//   - it reads what is inside tunnels, where we stop.
func dissected(b []byte) (s seen, ok bool) {
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	network := false
	for i, l := range p.Layers() {
		switch l.LayerType() {
		case layers.LayerTypeIPv4, layers.LayerTypeIPv6:
			outer := map[uint16]gopacket.LayerType{0x0800: layers.LayerTypeIPv4, 0x86dd: layers.LayerTypeIPv6}[s.etype]
			if network || l.LayerType() != outer {
				return s, known(s.etype)
			}
			network = true
		case layers.LayerTypeUDP:
			if !network {
				return s, known(s.etype)
			}
		}
		switch l := l.(type) {
		case *layers.Ethernet:
			if i > 0 {
				return s, known(s.etype) // bridged, EtherType 0x6558
			}
			s.etype = uint16(l.EthernetType)
		case *layers.Dot1Q:
			tci := l.VLANIdentifier | uint16(l.Priority)<<13
			if l.DropEligible {
				tci |= 0x1000
			}
			if s.tags, s.etype = append(s.tags, tci), uint16(l.Type); s.etype < 0x0600 {
				return s, false // a length, which gopacket does not go behind
			}
		case *layers.SNAP:
			if !bytes.Equal(l.OrganizationalCode, []byte{0, 0, 0}) {
				return s, false
			}
			s.etype = uint16(l.Type)
		case *layers.LLC, *layers.IPv6HopByHop, *layers.IPv6Routing, *layers.IPv6Destination:
		case *layers.IPv4:
			s.proto = uint8(l.Protocol)
		case *layers.IPv6:
			s.proto = uint8(l.NextHeader)
		case *layers.UDP:
			s.proto, s.src, s.dst, s.payload = ProtoUDP, uint16(l.SrcPort), uint16(l.DstPort), l.Payload
			return s, true // what it says of the payload does not matter
		case *gopacket.DecodeFailure:
			return s, false
		default:
			return s, known(s.etype)
		}
	}
	return s, known(s.etype)
}

// known tells an EtherType that is none of the tags which gopacket takes for one.
func known(etype uint16) bool { return !isTPID(etype) }

// compare holds the two against each other on what both accept.
func compare(t *testing.T, b []byte) (both bool) {
	t.Helper()
	ours, ok := viewed(b)
	theirs, theirOK := dissected(b)
	if !ok || !theirOK {
		return false
	}
	if theirs.proto != ProtoUDP {
		// Without UDP to look at, the protocol behind extension headers is not told.
		ours.proto, theirs.proto = 0, 0
	}
	if !slices.Equal(ours.tags, theirs.tags) || ours.etype != theirs.etype || ours.proto != theirs.proto ||
		ours.src != theirs.src || ours.dst != theirs.dst || !bytes.Equal(ours.payload, theirs.payload) {
		t.Errorf("%x:\n%+v here\n%+v there", b, ours, theirs)
	}
	return true
}

var gopacketSeeds = []string{
	"ffffffffffff020000000001" + "0806" + "0001080006040001020000000001c000020a000000000000c000020b",
	"ffffffffffff020000000001" + "81002005" + "0800" + "4500001e00000000ff110000c0000201c000020200430044000a0000" + "abcd",
	"ffffffffffff020000000001" + "88a82001" + "81000002" + "0800" + "4600002200000000ff110000c0000201c00002029404000000430044000a0000" + "abcd" + "ffff",
	"ffffffffffff020000000001" + "0026" + "aaaa03000000" + "0800" + "4500001e00000000ff110000c0000201c000020200430044000a0000" + "abcd",
	"ffffffffffff020000000001" + "86dd" + "6000000000120040" + "20010db8000000000000000000000001" + "20010db8000000000000000000000002" + "1100010400000000" + "02220223000a0000" + "abcd",
	"ffffffffffff020000000001" + "6558" + "ffffffffffff0200000000020806" + "0001",
	"ffffffffffff020000000001" + "0800" + "4500001e00002000ff110000c0000201c000020200430044000a0000" + "abcd",
}

func TestAgreesWithGopacket(t *testing.T) {
	for i, s := range gopacketSeeds {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if !compare(t, b) {
			t.Errorf("frame %d is not compared", i)
		}
	}
}

// FuzzGopacket holds the views against gopacket on any frame that both accept.
func FuzzGopacket(f *testing.F) {
	for _, s := range gopacketSeeds {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { compare(t, b) })
}
