package frame

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	const mac = "ffffffffffff020000000001"
	for _, tt := range []struct {
		name, hex string
		tags      int
		typ       uint16
		payload   string
		cause     Cause
	}{
		{"arp", mac + "0806" + "0001", 0, 0x0806, "0001", CauseNone},
		{"priority tag", mac + "81000000" + "0806" + "0001", 1, 0x0806, "0001", CauseNone},
		{"QinQ, 802.1ad, 0x9100", mac + "88a80002" + "81000003" + "91000004" + "0800" + "45", 3, 0x0800, "45", CauseNone},
		{"six tags", mac + strings.Repeat("81000001", 6) + "0806" + "0001", 6, 0x0806, "0001", CauseNone},
		{"nine tags", mac + strings.Repeat("81000001", 9) + "0806" + "0001", 8, 0, "", CauseTooManyTags},
		{"SNAP carries ARP, padding clipped", mac + "000a" + "aaaa03000000" + "0806" + "0001" + "ffff", 0, 0x0806, "0001", CauseNone},
		{"802.1H carries ARP", mac + "000a" + "aaaa030000f8" + "0806" + "0001", 0, 0x0806, "0001", CauseNone},
		{"IPv4 by its DSAP", mac + "0004" + "060603" + "45", 0, 0x0800, "45", CauseNone},
		{"tag behind SNAP", mac + "000e" + "aaaa03000000" + "8100" + "0005" + "0806" + "0001", 1, 0x0806, "0001", CauseNone},
		{"a length behind SNAP and a tag", mac + "0010" + "aaaa03000000" + "8100" + "0005" + "0008" + "aaaa0300", 1, 0, "", CauseNestedLength},
		{"LLC behind its EtherType", mac + "8870" + "aaaa03000000" + "0806" + "0001", 0, 0x0806, "0001", CauseNone},
		{"LLC behind a tag and its EtherType", mac + "81000005" + "8870" + "aaaa03000000" + "0806" + "0001", 1, 0x0806, "0001", CauseNone},
		{"LLC behind SNAP", mac + "8870" + "aaaa03000000" + "8870" + "aaaa03000000" + "0806", 0, 0, "", CauseNestedLength},
		{"LLC cut", mac + "8870" + "aaaa", 0, 0, "", CauseShortLLC},
		{"SNAP with a group bit, polled", mac + "000a" + "abaa13000000" + "0806" + "0001", 0, 0x0806, "0001", CauseNone},
		{"SNAP of another OUI has no ethertype", mac + "0009" + "aaaa0300000c" + "2000" + "01", 0, 0, "01", CauseNone},
		{"STP", mac + "0004" + "42420300" + "0000", 0, 0, "00", CauseNone},
		{"length beyond the frame", mac + "0010" + "aaaa03", 0, 0, "", CauseBadLength},
		{"length 1501", mac + "05dd" + strings.Repeat("00", 1501), 0, 0, "", CauseBadLength},
		{"short SNAP", mac + "0005" + "aaaa030000", 0, 0, "", CauseShortLLC},
		{"tag cut", mac + "8100" + "0000", 1, 0, "", CauseShortTag},
		{"empty", "", 0, 0, "", CauseShortHeader},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			var f Frame
			f.Decode(b)
			if len(f.Tags()) != tt.tags || f.EtherType != tt.typ || f.Malformed != tt.cause || hex.EncodeToString(f.Payload) != tt.payload {
				t.Errorf("tags %d type %#x payload %x cause %v", len(f.Tags()), f.EtherType, f.Payload, f.Malformed)
			}
		})
	}
}

func TestDecodeAllocs(t *testing.T) {
	var f Frame
	b := make([]byte, 60)
	if n := testing.AllocsPerRun(100, func() { f.Decode(b) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x81\x00\x00\x01\x00\x08\xaa\xaa\x03\x00\x00\x00\x08\x06"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr Frame
		fr.Decode(b)
		if !bytes.Contains(b, fr.Payload) || fr.Is8023 && len(fr.Payload) > int(fr.Length) {
			t.Errorf("payload %x is not clipped", fr.Payload)
		}
	})
}
