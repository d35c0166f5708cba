package wire

import (
	"bytes"
	"testing"
)

func example() Datagram {
	return Datagram{EthDst: [6]byte{255, 255, 255, 255, 255, 255}, EthSrc: [6]byte{2, 0, 0, 0, 0, 1}, Src: 0x0a010001, Dst: 0xffffffff,
		SrcPort: 67, DstPort: 68, Payload: bytes.Repeat([]byte{7}, 301)}
}

func TestDatagram(t *testing.T) {
	d := example()
	frame := d.Append([]byte("before"), 0, false)[6:]
	var got Datagram
	if fault := got.Decode(frame, true); fault != "" {
		t.Fatal(fault)
	}
	if !bytes.Equal(got.Payload, d.Payload) || got.Src != d.Src || got.Dst != d.Dst || got.SrcPort != 67 || got.DstPort != 68 || got.EthSrc != d.EthSrc || got.EthDst != d.EthDst {
		t.Errorf("%+v", got)
	}
	tagged := d.Append(nil, 5, true)
	if !bytes.Equal(tagged[12:18], []byte{0x81, 0, 0, 5, 8, 0}) || !bytes.Equal(tagged[18:], frame[14:]) {
		t.Errorf("tagged: %x", tagged[:20])
	}
}

func TestFaults(t *testing.T) {
	d := example()
	for _, tt := range []struct {
		name   string
		spoil  func(b []byte) []byte
		summed bool
		fault  Fault
	}{
		{"nothing", func(b []byte) []byte { return b }, true, ""},
		{"Ethernet padding", func(b []byte) []byte { return append(b, 1, 2, 3) }, true, ""},
		{"cut off", func(b []byte) []byte { return b[:40] }, true, FaultFrame},
		{"empty", func(b []byte) []byte { return nil }, true, FaultFrame},
		{"a fragment", func(b []byte) []byte { b[20] |= 0x20; b[24] -= 0x20; return b }, true, FaultFragment},
		{"one bit of the message", func(b []byte) []byte { b[100] ^= 1; return b }, true, FaultChecksum},
		{"the same, where nobody has summed", func(b []byte) []byte { b[100] ^= 1; return b }, false, ""},
		{"one bit of the IPv4 header", func(b []byte) []byte { b[22] ^= 1; return b }, false, FaultChecksum},
		{"no checksum", func(b []byte) []byte { b[40], b[41] = 0, 0; b[100] ^= 1; return b }, true, ""},
		{"a tag in the bytes", func(b []byte) []byte { return d.Append(nil, 5, true) }, true, FaultFrame},
		{"a UDP length beyond", func(b []byte) []byte { b[38] = 0xff; return b }, true, FaultFrame},
		{"ARP", func(b []byte) []byte { b[13] = 6; return b }, true, FaultFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got Datagram
			if fault := got.Decode(tt.spoil(d.Append(nil, 0, false)), tt.summed); fault != tt.fault {
				t.Errorf("%q, want %q", fault, tt.fault)
			}
		})
	}
}

// FuzzDecode: what is decoded is the same when it is sent.
func FuzzDecode(f *testing.F) {
	d := example()
	f.Add(d.Append(nil, 0, false))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, again Datagram
		if d.Decode(b, true) != "" {
			return
		}
		if fault := again.Decode(d.Append(nil, 0, false), true); fault != "" || !bytes.Equal(d.Payload, again.Payload) {
			t.Errorf("%x: %s", b, fault)
		}
	})
}
