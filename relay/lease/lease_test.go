package lease

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/relay/binding"
)

var place = binding.Place{Interface: "veth1", VLAN: 7}

const mac = "02:00:00:00:00:01"

// TestRead reads what the servers have written; LATER stands for an hour from now.
func TestRead(t *testing.T) {
	later := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	fill := strings.NewReplacer("UNIX", fmt.Sprint(later.Unix()), "LATER", fmt.Sprintf("%d %s", later.Weekday(), later.Format(iscTime)))
	for _, tt := range []struct {
		name, format, text string
		want               string // addresses and client identifiers, in hex
		err                bool
	}{
		{"dhcpd", "isc", `# The format of this file is documented in the dhcpd.leases(5) manual page.
authoring-byte-order little-endian;
server-duid "\000\001\000\0012\014";
lease 10.1.0.100 {
  starts 3 2026/11/25 02:00:00;
  ends LATER;
  cltt 3 2026/11/25 02:00:00;
  binding state active;
  next binding state free;
  rewind binding state free;
  hardware ethernet 02:00:00:00:00:01;
  uid "\001\002\"\\\000\000\001";
  client-hostname "a;b}";
}
lease 10.1.0.101 {
  ends never;
  binding state active;
  hardware ethernet 02:00:00:00:00:01;
  uid 01:02:03;
}
lease 10.1.0.102 {
  ends 3 2020/11/25 02:00:00;
  binding state active;
  hardware ethernet 02:00:00:00:00:01;
}
lease 10.1.0.103 {
  ends epoch UNIX; # with db-time-format local
  binding state active;
  hardware ethernet 02:00:00:00:00:01;
}
lease 10.1.0.103 {
  ends LATER;
  binding state free;
  hardware ethernet 02:00:00:00:00:01;
}
`, "10.1.0.100 0102225c000001, 10.1.0.101 010203", false},
		{"dhcpd, cut off", "isc", "lease 10.1.0.100 {\n  binding state active;\n", "", true},
		{"dhcpd, another address", "isc", "lease 2001:db8::1 {\n}\n", "", true},
		{"Kea", "kea", "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n" +
			"10.1.0.100," + mac + ",01:02:03,3600,UNIX,1,0,0,host,0,,0\n" +
			"10.1.0.101," + mac + ",,3600,UNIX,1,0,0,,0,\n10.1.0.102,,,3600,UNIX,1,0,0,,1,\n" +
			"10.1.0.101," + mac + ",,0,UNIX,1,0,0,,2,\n10.1.0.104," + mac + ",,4294967295,4294967295,1,0,0,,0,\n",
			"10.1.0.100 010203, 10.1.0.104 ", false},
		{"Kea of before client contexts", "kea", "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname\n10.1.0.100," + mac + ",,3600,UNIX,1,0,0,\n", "10.1.0.100 ", false},
		{"Kea without a header", "kea", "10.1.0.100," + mac + "\n", "", true},
		{"Kea, bad address", "kea", "address,hwaddr,expire\nx," + mac + ",1\n", "", true},
		{"dnsmasq", "dnsmasq", "UNIX " + mac + " 10.1.0.100 host 01:02:00:00:00:00:01\nUNIX " + mac + " 10.1.0.101 * *\n0 " + mac +
			" 10.1.0.102 * ff:1\n1 " + mac + " 10.1.0.103 * *\nduid 00:01\n1 2 2001:db8::1 * *\n", "10.1.0.100 01020000000001, 10.1.0.101 , 10.1.0.102 ff01", false},
		{"dnsmasq, too few words", "dnsmasq", "1 " + mac + "\n", "", true},
		{"dnsmasq, Infiniband", "dnsmasq", "1 20-00:01 10.1.0.1 * *\n", "", true},
		{"an endless line", "dnsmasq", strings.Repeat("x", 1<<17), "", true},
		{"nothing", "isc", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Named(tt.format)
			if err != nil {
				t.Fatal(err)
			}
			list, err := f.Read(strings.NewReader(fill.Replace(tt.text)), place)
			if tt.err != errors.Is(err, ErrSyntax) || !tt.err && err != nil {
				t.Fatalf("%v", err)
			}
			var got []string
			for _, b := range list {
				got = append(got, fmt.Sprintf("%s %x", b.IP, b.ClientID))
				if b.Place != place || b.MAC.String() != mac || !b.Never() && b.Expiry != later.UnixNano() {
					t.Errorf("%+v", b)
				}
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// What is written is read again.
func TestRoundTrip(t *testing.T) {
	var list []binding.Binding
	for i, id := range []string{"", "\x01\x02\x00\x00\x00\x00\x01", "\xff"} {
		b := binding.Binding{IP: binding.IPv4(0x0a010064 + i), MAC: binding.MAC{2, 0, 0, 0, 0, byte(i)}, Place: place, ClientID: id}
		if i != 0 {
			b.ExpiresAt(time.Now().Add(time.Hour).Truncate(time.Second).UnixNano())
		}
		list = append(list, b)
	}
	for _, f := range Formats {
		var out bytes.Buffer
		if err := f.Write(&out, list); err != nil {
			t.Fatal(err)
		}
		again, err := f.Read(&out, place)
		if err != nil || len(again) != len(list) {
			t.Fatalf("%s: %v, %v", f.Name, again, err)
		}
		for i := range again {
			got, want := again[i], list[i]
			got.Deadline, want.Deadline = 0, 0
			if got != want {
				t.Errorf("%s: %#v, want %#v", f.Name, got, want)
			}
		}
	}
}

func TestNamed(t *testing.T) {
	if _, err := Named("bind"); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

// FuzzRead: whatever a file holds, what is read can be written and read again.
func FuzzRead(f *testing.F) {
	f.Add("lease 10.1.0.1 {\n ends never;\n binding state active;\n hardware ethernet 02:00:00:00:00:01;\n uid \"\\001a\";\n}\n", byte(0))
	f.Add("address,hwaddr,client_id,valid_lifetime,expire,state\n10.1.0.1,02:00:00:00:00:01,01:02,4294967295,4294967295,0\n", byte(1))
	f.Add("0 02:00:00:00:00:01 10.1.0.1 * 01:02\n", byte(2))
	f.Fuzz(func(t *testing.T, text string, which byte) {
		format := Formats[int(which)%len(Formats)]
		list, err := format.Read(strings.NewReader(text), place)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := format.Write(&out, list); err != nil {
			t.Fatal(err)
		}
		if again, err := format.Read(&out, place); err != nil || len(again) > len(list) {
			t.Errorf("%v became %v, %v", list, again, err)
		}
	})
}
