package message

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/postern-fw/postern/proto/dhcp"
)

// make1 makes a message of these options, in hex.
func make1(t testing.TB, options string) *dhcp.Message {
	t.Helper()
	b := make([]byte, 236)
	b[0], b[1], b[2] = 1, 1, 6
	v, err := hex.DecodeString("63825363" + options)
	if err != nil {
		t.Fatal(err)
	}
	var m dhcp.Message
	m.Decode(append(b, v...))
	return &m
}

// options are what stands behind the cookie, in hex, without padding.
func options(b []byte) string {
	return hex.EncodeToString(bytes.TrimRight(b[240:], "\x00"))
}

func TestToServer(t *testing.T) {
	long := hex.EncodeToString(append([]byte{82, 254}, make([]byte, 254)...))
	for _, tt := range []struct {
		name, in string
		policy   Policy
		out      string
		err      error
	}{
		{"option 82 is the last", "350101" + "0c0161" + "ff", Drop, "350101" + "0c0161" + "5203010161" + "ff", nil},
		{"padding goes", "000000350101" + "0000ff0000", Drop, "350101" + "5203010161" + "ff", nil},
		{"drop", "350101" + "5203010162" + "ff", Drop, "", ErrHasInfo},
		{"keep", "350101" + "5203010162" + "0c0161ff", Keep, "350101" + "0c0161" + "5203010162" + "ff", nil},
		{"keep an empty one", "350101" + "5200" + "ff", Keep, "350101" + "5200" + "ff", nil},
		{"replace", "350101" + "5203010162" + "ff", Replace, "350101" + "5203010161" + "ff", nil},
		{"append", "350101" + "5203010162" + "ff", Append, "350101" + "5206010162010161" + "ff", nil},
		{"append to one that is full", "350101" + long + "ff", Append, "", ErrOverflow},
		{"in file", "350101" + "340101" + "ff", Drop, "350101" + "340101" + "5203010161" + "ff", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := make1(t, tt.in)
			if tt.name == "in file" {
				copy(m.Bytes()[108:], "\x0c\x01a\xff")
			}
			out, err := ToServer(make([]byte, 7, 4096), m, 0x0a010001, tt.policy, []byte{1, 1, 'a'})
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			b := out[7:]
			if got := options(b); got != tt.out || len(b) < minLen || b[hopsAt] != 1 || !bytes.Equal(b[giaddrAt:giaddrAt+4], []byte{10, 1, 0, 1}) {
				t.Errorf("%s, want %s; %d bytes, hops %d, giaddr %v", got, tt.out, len(b), b[hopsAt], b[giaddrAt:giaddrAt+4])
			}
		})
	}
}

func TestToServerKeepsGiaddr(t *testing.T) {
	m := make1(t, "350101ff")
	m.Bytes()[giaddrAt] = 9
	out, err := ToServer(nil, m, 0x0a010001, Drop, nil)
	if err != nil || out[giaddrAt] != 9 || options(out) != "350101ff" {
		t.Errorf("%x, %v", out, err)
	}
}

// Option 82 that stands in sname or file cannot be taken out there.
func TestInfoInFile(t *testing.T) {
	b := make1(t, "350101"+"340101"+"ff").Bytes()
	copy(b[108:], "\x52\x03\x01\x01b\xff")
	var m dhcp.Message
	m.Decode(b)
	for _, p := range []Policy{Drop, Keep, Replace, Append} {
		if _, err := ToServer(nil, &m, 1, p, nil); !errors.Is(err, ErrInfo) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, err := ToClient(nil, &m, "", false); !errors.Is(err, ErrInfo) {
		t.Errorf("to the client: %v", err)
	}
}

func TestToClient(t *testing.T) {
	m := make1(t, "350105"+"5206010162010161"+"3604c0000235"+"ff")
	for _, tt := range []struct {
		sent string
		has  bool
		out  string
	}{
		{"", false, "350105" + "3604c0000235" + "ff"},
		{"\x01\x01b", true, "350105" + "3604c0000235" + "5203010162" + "ff"},
		{"", true, "350105" + "3604c0000235" + "5200" + "ff"},
	} {
		if out, err := ToClient(nil, m, tt.sent, tt.has); err != nil || options(out) != tt.out || out[hopsAt] != 0 {
			t.Errorf("%q: %s, %v; want %s", tt.sent, options(out), err, tt.out)
		}
	}
}

func TestTooLong(t *testing.T) {
	m := make1(t, "350101"+"ff")
	var long dhcp.Message
	long.Decode(append(m.Bytes(), make([]byte, MaxLen)...))
	if _, err := ToServer(nil, &long, 1, Drop, nil); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

func TestAllocs(t *testing.T) {
	m := make1(t, "350101"+"0c0161"+"ff")
	dst, info := make([]byte, 0, 2048), []byte{1, 1, 'a'}
	if n := testing.AllocsPerRun(100, func() { _, _ = ToServer(dst, m, 1, Drop, info) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzMessage: what is sent on is sound, has the same type, at most one option 82, and fits.
func FuzzMessage(f *testing.F) {
	f.Add(make1(f, "350101"+"5203010162"+"0c0161ff").Bytes(), byte(3))
	f.Add(make1(f, "340103350101ff").Bytes(), byte(0))
	f.Fuzz(func(t *testing.T, b []byte, p byte) {
		var m dhcp.Message
		if m.Decode(b); m.Malformed != dhcp.CauseNone {
			return
		}
		up, err := ToServer(nil, &m, 1, Policy(p%4), []byte{1, 1, 'a'})
		down, err2 := ToClient(nil, &m, "\x01\x01b", p&4 != 0)
		for _, out := range [][]byte{up, down} {
			if len(out) == 0 {
				continue
			}
			var got dhcp.Message
			if got.Decode(out); got.Malformed != dhcp.CauseNone || got.Type != m.Type || len(out) > MaxLen {
				t.Errorf("%x became %x: %v, type %d, %d bytes (%v, %v)", b, out, got.Malformed, got.Type, len(out), err, err2)
			}
		}
	})
}
