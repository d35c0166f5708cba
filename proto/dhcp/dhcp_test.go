package dhcp

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// message makes a message from the contents of its three fields, in hex.
func message(t testing.TB, options, file, sname string) []byte {
	t.Helper()
	b := make([]byte, fixedLen, 576)
	b[0], b[1], b[2] = 1, 1, 6
	for _, part := range []struct {
		at  int
		hex string
	}{{44, sname}, {108, file}, {fixedLen, "63825363" + options}} {
		v, err := hex.DecodeString(part.hex)
		if err != nil {
			t.Fatal(err)
		}
		if part.at == fixedLen {
			b = append(b, v...)
			continue
		}
		copy(b[part.at:], v)
	}
	return b
}

func TestDecode(t *testing.T) {
	pad300 := hex.EncodeToString(make([]byte, 300))
	for _, tt := range []struct {
		name, options, file, sname string
		typ                        uint8
		cause                      Cause
	}{
		{"type first", "350101ff", "", "", 1, CauseNone},
		{"End followed by padding that looks like a type", "350101ff350102", "", "", 1, CauseNone},
		{"type after 300 bytes of pad", pad300 + "350102ff", "", "", 2, CauseNone},
		{"type in file, after an End", "340101ff", "350102ff", "", 2, CauseNone},
		{"type in sname", "340102ff", "", "350105ff", 5, CauseNone},
		{"type in both", "340103ff", "350102ff", "350102ff", 2, CauseNone},
		{"two types over two fields", "350101340101ff", "350102ff", "", 1, CauseTwoTypes},
		{"PXE boot file without overload is not read", "350101ff", "350102ff", "", 1, CauseNone},
		{"overload names itself in file", "350101340101ff", "340102ff", "350102ff", 1, CauseOverload},
		{"overload 4", "340104350101ff", "", "", 1, CauseOverload},
		{"overload of two bytes", "34020101350101ff", "", "", 1, CauseOverload},
		{"overload twice, differing", "340101340102350101ff", "", "", 1, CauseOverload},
		{"type twice, the same", "350101350101ff", "", "", 1, CauseNone},
		{"type twice, differing", "350101350102ff", "", "", 1, CauseTwoTypes},
		{"server identifier twice, differing", "3501013604c00002013604c0000202ff", "", "", 1, CauseRepeated},
		{"server identifier twice, the same", "3501013604c00002013604c0000201ff", "", "", 1, CauseRepeated},
		{"requested address, differing in file", "350101340101" + "3204c0000201ff", "3204c0000202ff", "", 1, CauseRepeated},
		{"client identifier split", "3501013d0301aabb3d02ccddff", "", "", 1, CauseRepeated},
		{"option 82 split", "3501015203010261520162ff", "", "", 1, CauseRepeated},
		{"option 82 and an empty one", "3501015203010161" + "5200ff", "", "", 1, CauseRepeated},
		{"vendor option split", "3501012b0301aabb2b02ccddff", "", "", 1, CauseNone},
		{"type 0, then another", "350100350101ff", "", "", 0, CauseTwoTypes},
		{"type of no length", "3500350101ff", "", "", 1, CauseTypeLength},
		{"type of two bytes", "35020102ff", "", "", 0, CauseTypeLength},
		{"no type", "0c0161ff", "", "", 0, CauseNoMessageType},
		{"length past the end", "3501010cff6162", "", "", 1, CausePastEnd},
		{"code without a length", "3501010c", "", "", 1, CausePastEnd},
		{"no End", "350101", "", "", 1, CausePastEnd},
		{"nothing behind the cookie", "", "", "", 0, CausePastEnd},
		{"no End in an overloaded file", "350101340101ff", "", "", 1, CausePastEnd},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			m.Decode(message(t, tt.options, tt.file, tt.sname))
			if m.Type != tt.typ || m.Malformed != tt.cause {
				t.Errorf("type %d, %v; want %d, %v", m.Type, m.Malformed, tt.typ, tt.cause)
			}
		})
	}
}

func TestDecodeWithoutOptions(t *testing.T) {
	var m Message
	if m.Decode(make([]byte, 235)); m.Malformed != CauseShort {
		t.Errorf("235 bytes: %v", m.Malformed)
	}
	for _, n := range []int{236, 239, 300} {
		if m.Decode(make([]byte, n)); m.HasCookie || m.Malformed != CauseNone {
			t.Errorf("BOOTP of %d bytes: %+v", n, m)
		}
		if it := m.Options(); it.Next() {
			t.Errorf("BOOTP of %d bytes has an option", n)
		}
	}
}

func TestJoinAndSuboptions(t *testing.T) {
	var m Message
	m.Decode(message(t, "350101"+"52040102aabb"+"340101"+"52020201"+"ff", "520163ff", ""))
	if m.Malformed != CauseRepeated {
		t.Fatal(m.Malformed)
	}
	joined := m.Join(nil, OptRelayAgentInfo)
	if got := hex.EncodeToString(joined); got != "0102aabb020163" {
		t.Fatalf("joined: %s", got)
	}
	it, got := NewSuboptions(joined), ""
	for it.Next() {
		got += hex.EncodeToString(append([]byte{it.Code}, it.Data...)) + " "
	}
	if got != "01aabb 0263 " || it.Malformed != CauseNone {
		t.Errorf("%q, %v", got, it.Malformed)
	}
	it = NewSuboptions([]byte{1, 3, 0})
	if it.Next() || it.Malformed != CausePastEnd {
		t.Errorf("a long sub-option: %v", it.Malformed)
	}
}

func TestAllocs(t *testing.T) {
	b := message(t, "350101340101ff", "0c0161ff", "")
	var m Message
	if n := testing.AllocsPerRun(100, func() {
		m.Decode(b)
		for it := m.Options(); it.Next(); {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode holds the view against insomniacslk/dhcp on what both accept. That
// library does not know option 52, so overloaded messages are not compared, and
// it joins a repeated option 53, which we read one by one.
func FuzzDecode(f *testing.F) {
	f.Add(message(f, "350101ff", "", ""))
	f.Add(message(f, "340103ff", "350102ff", "0c0161ff"))
	f.Add(message(f, "3501050c0161520401020304ff00", "", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		m.Decode(b)
		if m.HasCookie {
			slow := Message{b: b, HasCookie: true}
			if slow.scanFields(); !reflect.DeepEqual(slow, m) {
				t.Fatalf("%+v, field by field %+v", m, slow)
			}
		}
		if m.Malformed != CauseNone || !m.HasCookie || m.Overload != 0 {
			return
		}
		lib, err := dhcpv4.FromBytes(b)
		if err != nil {
			return
		}
		if uint32(lib.TransactionID[0])<<24|uint32(lib.TransactionID[1])<<16|uint32(lib.TransactionID[2])<<8|uint32(lib.TransactionID[3]) != m.XID() {
			t.Errorf("xid %v, %#x", lib.TransactionID, m.XID())
		}
		for it := m.Options(); it.Next(); {
			if joined := m.Join(nil, it.Code); !bytes.Equal(lib.Options[it.Code], joined) {
				t.Errorf("option %d: %x there, %x here", it.Code, lib.Options[it.Code], joined)
			}
		}
	})
}
