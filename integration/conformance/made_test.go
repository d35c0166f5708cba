package conformance

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// made are frames with what the corpus lacks: the forms of a client identifier,
// sub-options of option 82, and IEEE 1722.
func made(t testing.TB) (frames []captured) {
	add := func(b []byte) {
		frames = append(frames, captured{"made", len(frames) + 1, b, len(b)})
	}
	for _, options := range []string{
		"3d13 ff 00000001 0001 0001 01020304 0a0b0c0d0e0f 350101 ff",                              // DUID-LLT
		"3d0f ff 00000001 0002 00001234 0a0b0c0d 350101 ff",                                       // DUID-EN
		"3d0f ff 00000001 0003 0001 0a0b0c0d0e0f 350101 ff",                                       // DUID-LL
		"3d04 00 616263 350101 ff",                                                                // text
		"3d07 01 0a0b0c0d0e0f 350101 ff",                                                          // a hardware address
		"5224 0103616263 0202ffee 0504c0000201 0603616263 0b04c0000202 0c020102 350101 ff 000000", // cut short
		"521f 0103616263 0202ffee 0504c0000201 0603616263 0b04c0000202 0c020102 350101 ff",
	} {
		add(dhcpFrame(unhex(t, options)))
	}
	add(unhex(t, "ffffffffffff 020000000001 22f0 0280"+strings.Repeat("00", 44)))
	add(unhex(t, "ffffffffffff 020000000001 22f0 fa01"+strings.Repeat("00", 44)))
	return frames
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// dhcpFrame is a DISCOVER with the options given.
func dhcpFrame(options []byte) []byte {
	udp := 8 + 240 + len(options)
	b := []byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x00" +
		"\x45\x00\x00\x00\x00\x00\x00\x00\x40\x11\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff" +
		"\x00\x44\x00\x43\x00\x00\x00\x00" + "\x01\x01\x06\x00\x12\x34\x56\x78")
	binary.BigEndian.PutUint16(b[16:], uint16(20+udp))
	binary.BigEndian.PutUint16(b[38:], uint16(udp))
	b = append(b, make([]byte, 20)...)
	b = append(b, "\x02\x00\x00\x00\x00\x01"...)
	b = append(b, make([]byte, 202)...)
	b = append(b, "\x63\x82\x53\x63"...)
	return append(b, options...)
}
