package frame

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestIPv4UDP(t *testing.T) {
	const addrs = "c0000201" + "c0000202"
	for _, tt := range []struct {
		name, hex string
		ip, udp   Cause
		payload   string
	}{
		{"plain", "4500001e00000000ff110000" + addrs + "00430044000a0000" + "abcd", CauseNone, CauseNone, "abcd"},
		{"IP trailer that looks like data", "4500001e00000000ff110000" + addrs + "00430044000a0000" + "abcd" + "350102", CauseNone, CauseNone, "abcd"},
		{"UDP shorter than its IP payload", "4500001e00000000ff110000" + addrs + "0043004400090000" + "abcd", CauseNone, CauseNone, "ab"},
		{"options move the UDP header", "4600002200000000ff110000" + addrs + "94040000" + "00430044000a0000" + "abcd", CauseNone, CauseNone, "abcd"},
		{"UDP longer than its IP payload", "4500001e00000000ff110000" + addrs + "00430044000b0000" + "abcd" + "ef", CauseNone, CauseUDPLen, "abcd"},
		{"UDP length 7", "4500001c00000000ff110000" + addrs + "0043004400070000", CauseNone, CauseUDPLen, ""},
		{"tiny first fragment", "4500001800002000ff110000" + addrs + "00430044", CauseNone, CauseShortUDP, ""},
		{"total length beyond the frame", "4500001f00000000ff110000" + addrs + "00430044000a0000" + "abcd", CauseIPv4TotalLen, CauseNone, "abcd"},
		{"total length below the header", "4500001300000000ff110000" + addrs, CauseIPv4TotalLen, CauseShortUDP, ""},
		{"IHL 4", "4400001400000000ff110000" + addrs, CauseIPv4HdrLen, CauseShortUDP, ""},
		{"IHL 15 beyond the frame", "4f00003c00000000ff110000" + addrs, CauseIPv4HdrLen, CauseShortUDP, ""},
		{"version 6", "6500001400000000ff110000" + addrs, CauseIPVersion, CauseShortUDP, ""},
		{"short", "45", CauseShortIPv4, CauseShortUDP, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := hex.DecodeString(tt.hex)
			if err != nil {
				t.Fatal(err)
			}
			var ip IPv4
			var udp UDP
			ip.Decode(b)
			udp.Decode(ip.Payload)
			if ip.Malformed != tt.ip || udp.Malformed != tt.udp || hex.EncodeToString(udp.Payload) != tt.payload {
				t.Errorf("%v, %v, %x", ip.Malformed, udp.Malformed, udp.Payload)
			}
		})
	}
}

func TestIPv4Fragment(t *testing.T) {
	for flags, want := range map[byte]struct {
		fragment, more bool
		offset         uint16
	}{0x00: {}, 0x40: {}, 0x20: {true, true, 0}, 0x01: {true, false, 2048}} {
		b := make([]byte, 20)
		b[0], b[3], b[6] = 0x45, 20, flags
		var ip IPv4
		ip.Decode(b)
		if ip.Malformed != CauseNone || ip.Fragment() != want.fragment || ip.MoreFrags != want.more || ip.FragOffset != want.offset {
			t.Errorf("flags %#x: %+v", flags, ip)
		}
	}
}

func FuzzIPv4UDP(f *testing.F) {
	b, _ := hex.DecodeString("4600002200000000ff110000c0000201c00002029404000000430044000a0000abcd")
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var ip IPv4
		var udp UDP
		ip.Decode(b)
		udp.Decode(ip.Payload)
		if ip.Malformed == CauseNone && (len(ip.Payload)+int(ip.HdrLen) != int(ip.TotalLen) || !bytes.HasPrefix(b[ip.HdrLen:], ip.Payload)) {
			t.Errorf("IPv4 payload %x is not clipped", ip.Payload)
		}
		if udp.Malformed == CauseNone && len(udp.Payload)+8 != int(udp.Length) {
			t.Errorf("UDP payload %x is not clipped", udp.Payload)
		}
	})
}
