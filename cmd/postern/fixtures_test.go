package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/internal/capture"
)

// The fixtures' frames, without Ethernet's padding.
const (
	frameRequest = "ffffffffffff020000000001" + "0806" + "0001080006040001" + "020000000001" + "c0000205" + "000000000000" + "c0000201"
	frameReply   = "020000000002020000000001" + "0806" + "0001080006040002" + "020000000001" + "c000020a" + "020000000002" + "c0000205"
	frameForged  = "020000000002020000000001" + "81000000" + "0806" + "0001080006040002" + "020000000099" + "c000020a" + "020000000002" + "c0000205"
	frameBadARP  = "ffffffffffff020000000001" + "0806" + "0001080005040002" + "0200000001"
	frameLLDP    = "0180c200000e020000000001" + "88cc" + "0207040200000000010403020001060200780000"
)

// frameOffer is a DHCP OFFER from 02:…:01.
var frameOffer = "ffffffffffff020000000001" + "0800" + "4500011600000000401100000a000001ffffffff" + "0043004401020000" +
	"02010600deadbeef00000000" + "00000000" + "0a000005" + "00000000" + "00000000" + "02aabbccddee" + strings.Repeat("00", 10+192) +
	"63825363" + "350102" + "36040a000001" + "ff"

func fromHex(t *testing.T, s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// pcapHeader is that of a little-endian pcap with nanoseconds.
func pcapHeader(link byte) []byte {
	return append([]byte("\x4d\x3c\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00"), link, 0, 0, 0)
}

// pcapRecord is a frame, a second after the one of the number before.
func pcapRecord(number int, frame []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(1_700_000_000+number))
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(frame)))
	return append(b, frame...)
}

// fixtures makes a directory with testdata's policies and with captures.
func fixtures(t *testing.T, source string) string {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(source, "testdata", "*.[yt][ax][mt]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(filepath.Base(name), b)
	}
	trace := pcapHeader(1)
	for i, s := range []string{frameRequest, frameReply, frameForged, frameBadARP, frameOffer, frameLLDP} {
		trace = append(trace, pcapRecord(i, fromHex(t, s))...)
	}
	write("trace.pcap", trace)
	write("truncated.pcap", trace[:len(trace)-10])
	write("wlan.pcap", pcapHeader(105))
	write("mixed.pcapng", mixed(t))
	write("empty.pcap", nil)
	write("binary.pcap", []byte("\x7fELF\x02\x01\x01\x00\x00\xff\xfe"))
	flood := pcapHeader(1)
	for range 3 {
		flood = append(flood, pcapRecord(0, fromHex(t, frameReply))...)
	}
	write("flood.pcap", append(flood, pcapRecord(1, fromHex(t, frameReply))...))
	return dir
}

// mixed is a pcapng with eth0 and, second, an interface without Ethernet.
func mixed(t *testing.T) []byte {
	var b bytes.Buffer
	w, err := capture.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "wlan0"} {
		f := capture.Frame{Iface: name, Time: 1, Data: fromHex(t, frameReply)}
		f.WireLen = len(f.Data)
		if err := w.Write(&f, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	// The writer knows Ethernet alone: the last description block's link type.
	i := bytes.LastIndex(b.Bytes(), []byte("\x01\x00\x00\x00\x2c\x00\x00\x00\x01\x00"))
	if i < 0 {
		t.Fatal("no interface description")
	}
	b.Bytes()[i+8] = 105
	return b.Bytes()
}
