package arp

import (
	"encoding/hex"
	"testing"

	marp "github.com/mdlayher/arp"
)

const reply = "0001080006040002" + "020000000001c000020a" + "020000000002c000020b"

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		cause     Cause
	}{
		{"28 bytes", reply, CauseNone},
		{"padding", reply + "ffffffff", CauseNone},
		{"cut inside an address", reply[:50], CauseShort},
		{"cut inside the header", reply[:12], CauseShort},
		{"hw.size 0", "00010800000400020000", CauseHWSize},
		{"hw.size 255", "00010800ff040002", CauseHWSize},
		{"proto.size 20", "0001080006140002", CauseProtoSize},
		{"hw.type 6", "0006080006040002", CauseHWType},
		{"proto.type IPv6", "000186dd06040002", CauseProtoType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			var p Packet
			p.Decode(b)
			if p.Malformed != tt.cause {
				t.Fatalf("cause %v, want %v", p.Malformed, tt.cause)
			}
			if tt.cause == CauseNone && (p.Opcode() != 2 || p.SrcIPv4() != 0xc000020a || p.DstIPv4() != 0xc000020b || p.SrcHW()[5] != 1 || p.DstHW()[5] != 2) {
				t.Errorf("%+v", p)
			}
		})
	}
}

// FuzzDecode holds the view against mdlayher/arp. It takes any sizes and types,
// we do not: so only what we call sound is compared.
func FuzzDecode(f *testing.F) {
	b, _ := hex.DecodeString(reply)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Packet
		p.Decode(b)
		if p.Malformed != CauseNone {
			return
		}
		var m marp.Packet
		if err := m.UnmarshalBinary(b); err != nil {
			t.Fatalf("accepted here, refused there: %v", err)
		}
		ip := m.SenderIP.As4()
		got := uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
		src := p.SrcHW()
		if uint16(m.Operation) != p.Opcode() || got != p.SrcIPv4() || string(m.SenderHardwareAddr) != string(src[:]) {
			t.Errorf("%+v differs from %+v", p, m)
		}
	})
}
