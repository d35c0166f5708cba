package filter

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "print docs/fields.md anew")

// TestFieldsDoc keeps docs/fields.md what the catalogue says.
func TestFieldsDoc(t *testing.T) {
	const name = "../../docs/fields.md"
	want := fieldsDoc()
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/fields.md is stale (%v): go test ./firewall/filter -run TestFieldsDoc -update", err)
	}
}

func fieldsDoc() []byte {
	var b bytes.Buffer
	b.WriteString("# Fields\n\nPrinted from the catalogue in `firewall/filter` by `go test ./firewall/filter -run TestFieldsDoc -update`.\n" +
		"Names and meaning are Wireshark's, but for `sender.*`, `iface.*` and `*.malformed`; see [wireshark.md](wireshark.md).\n" +
		"A name that ends in `…` can occur more than once in a frame.\n\n" +
		"| field | type | where | what |\n|---|---|---|---|\n")
	for _, f := range Fields() {
		typ, name := f.Type.String(), "`"+f.Name+"`"
		if f.Bits > 0 {
			typ = fmt.Sprintf("%s, %d bits", typ, f.Bits)
		}
		if f.Many {
			name += " …"
		}
		where := f.Where
		if f.Engines != Everywhere {
			where += "; in process only"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, typ, where, f.Doc)
	}
	return b.Bytes()
}

// TestNamesAreWiresharks looks every name and type up in tshark's own list.
func TestNamesAreWiresharks(t *testing.T) {
	_, err := exec.LookPath("tshark")
	need(t, err == nil, "tshark")
	out, err := exec.Command("tshark", "-G", "fields").Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		column := strings.Split(line, "\t")
		if column[0] == "P" && len(column) > 2 {
			theirs[strings.TrimSpace(column[2])] = "FT_PROTOCOL"
		} else if len(column) > 3 {
			theirs[column[2]] = column[3]
		}
	}
	types := map[Type]string{TypeUint: "FT_UINT8 FT_UINT16 FT_UINT24 FT_UINT32", TypeBool: "FT_BOOLEAN", TypeMAC: "FT_ETHER", TypeIPv4: "FT_IPv4",
		TypeIPv6: "FT_IPv6", TypeBytes: "FT_BYTES", TypeString: "FT_STRING FT_STRINGZ", TypeProtocol: "FT_PROTOCOL"}
	for _, f := range Fields() {
		if theirs := theirs[f.Name]; !ours(f.Name) && !slices.Contains(strings.Fields(types[f.Type]), theirs) {
			t.Errorf("%s is a %s here, %q there", f.Name, f.Type, theirs)
		}
	}
}

func TestCatalogueIsSound(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Fields() {
		switch {
		case seen[f.Name]:
			t.Errorf("%s is there twice", f.Name)
		case Lookup(f.Name) != f:
			t.Errorf("%s: Lookup finds another", f.Name)
		case f.Where == "" || f.Doc == "" || f.Engines == 0:
			t.Errorf("%s does not say all: %+v", f.Name, f)
		case (f.Type == TypeUint) != (f.Bits > 0):
			t.Errorf("%s is a %s of %d bits", f.Name, f.Type, f.Bits)
		case f.get == nil && len(f.At) == 0:
			t.Errorf("%s cannot be read", f.Name)
		}
		seen[f.Name] = true
	}
	if Lookup("arp.opcod") != nil {
		t.Error("a field that is none")
	}
}

// TestPlacesAreTrue reads the fields with a place by it and by their getter: what
// an engine made from the places sees is what Value sees.
func TestPlacesAreTrue(t *testing.T) {
	var p Packet
	p.Decode(ethFrame(0x0806, arpPacket(1, arpRest)), nil)
	for _, f := range Fields() {
		if f.get == nil || len(f.At) == 0 {
			continue
		}
		for i := range f.At {
			want, ok := f.in(p.Bytes(f.At[i].Layer), &f.At[i])
			if got, gotOK := f.Value(&p, i); got.Num != want.Num || gotOK != ok || !ok {
				t.Errorf("%s: %v, %v by its getter, %v, %v at its place", f.Name, got, gotOK, want, ok)
			}
		}
	}
}

func TestSuggest(t *testing.T) {
	for _, tt := range []struct{ name, first string }{
		{"arp.opcod", "arp.opcode"},
		{"dhcp.option.dhpc", "dhcp.option.dhcp"},
		{"eth.scr", "eth.src"},
		{"vlan.prioirty", "vlan.priority"},
		{"tcp.flags.syn", ""},
		{"", ""},
	} {
		got := Suggest(tt.name)
		if tt.first == "" && len(got) > 0 || tt.first != "" && (len(got) == 0 || got[0] != tt.first) {
			t.Errorf("%q: %q, want %q first", tt.name, got, tt.first)
		}
		if len(got) > 3 {
			t.Errorf("%q: %d suggestions", tt.name, len(got))
		}
	}
}

func TestValuesDoNotAllocate(t *testing.T) {
	frames := append(oddLinks(), append(oddPackets(), oddDHCP()...)...)
	sender := &Sender{UID: 1, Comm: "dhclient", Cgroup: "/user.slice"}
	meta := Meta{Iface: "eth0", HasIfaceMAC: true, Sender: sender}
	for _, b := range frames {
		var p Packet
		p.Decode(b, &meta)
		for _, f := range Fields() {
			if n := testing.AllocsPerRun(1, func() {
				for i := 0; ; i++ {
					if _, ok := f.Value(&p, i); !ok {
						break
					}
				}
			}); n != 0 {
				t.Fatalf("%s of %x: %v allocations", f.Name, b, n)
			}
		}
	}
}

// FuzzFields reads every field of any frame: none may panic, go on forever, or
// occur again when it can occur but once.
func FuzzFields(f *testing.F) {
	for _, c := range oddFrames()[:200] {
		f.Add(c.bytes, uint16(c.wire))
	}
	f.Fuzz(func(t *testing.T, b []byte, wire uint16) {
		var p Packet
		p.Decode(b, &Meta{WireLen: int(wire)})
		for _, field := range Fields() {
			n := 0
			for ; n < 70000; n++ {
				if _, ok := field.Value(&p, n); !ok {
					break
				}
			}
			if n > 1 && !field.Many || n == 70000 {
				t.Fatalf("%s occurs %d times", field.Name, n)
			}
			if _, ok := field.Value(&p, -1); ok {
				t.Fatalf("%s occurs before the first", field.Name)
			}
		}
	})
}
