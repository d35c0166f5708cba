package etcd

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/cluster"
)

func TestChange(t *testing.T) {
	for _, c := range []struct {
		name, key, value string
		lease            int64
		ours, sound      bool
	}{
		{"held", "vips/192.0.2.1", `{"node":"n1","since":"2026-11-25T03:00:00Z"}`, 7, true, true},
		{"released", "vips/192.0.2.1", `{"node":"n1","released":true}`, 7, true, true},
		{"under no lease", "vips/192.0.2.1", `{"node":"n1"}`, 0, true, false},
		{"no node", "vips/192.0.2.1", `{}`, 7, true, false},
		{"nothing", "vips/192.0.2.1", ``, 7, true, false},
		{"no object", "vips/192.0.2.1", `7`, 7, true, false},
		{"another type", "vips/192.0.2.1", `{"node":["n1"]}`, 7, true, false},
		{"released, and no JSON", "vips/192.0.2.1", `{"released":true`, 7, true, false},
		{"deep", "vips/192.0.2.1", strings.Repeat("[", 1<<20), 7, true, false},
		{"not UTF-8", "vips/192.0.2.1", "{\"node\":\"\xff\"}", 7, true, false},
		{"a name that moves the cursor", "vips/192.0.2.1", `{"node":"n\u001b[2J"}`, 7, true, false},
		{"a node of such a name", "nodes/n\x1b[2J", `{}`, 7, false, false},
		{"a node below another", "nodes/n1/../n1", `{}`, 7, false, false},
		{"another spelling", "vips/192.000.2.1", `{"node":"n1"}`, 7, false, false},
		{"IPv4 in IPv6, spelt otherwise", "vips/::ffff:C000:201", `{"node":"n1"}`, 7, false, false},
		{"no address", "vips/", `{"node":"n1"}`, 7, false, false},
		{"a key below", "vips/192.0.2.1/x", `{"node":"n1"}`, 7, false, false},
		{"another's", "policies/x", `{}`, 7, false, false},
	} {
		got, ours := change(Key{Name: c.key, Value: []byte(c.value), Lease: c.lease, Revision: 3})
		if ours != c.ours {
			t.Errorf("%s: ours %t", c.name, ours)
			continue
		}
		if !ours {
			continue
		}
		if h := got.Holder; h == nil || (h.Malformed == "") != c.sound || h.Revision != 3 || h.Lease != c.lease {
			t.Errorf("%s: %+v", c.name, h)
		}
	}
	if got, ok := change(Key{Name: "vips/192.0.2.1", Deleted: true}); !ok || got.Holder != nil || got.Address != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("deleted: %+v", got)
	}
	for value, takes := range map[string]bool{`{"addresses":["192.0.2.1"]}`: true, `{"addresses":["x"]}`: false, `[`: false} {
		if got, ok := change(Key{Name: "nodes/n1", Value: []byte(value), Lease: 7}); !ok || got.Record == nil || got.Record.Drained == takes || got.Record.Lease != 7 {
			t.Errorf("node %s: %+v", value, got.Record)
		}
	}
}

// FuzzChange: whatever stands below the prefix, it is read or refused, and nobody holds an address by what is
// no holder's writing.
func FuzzChange(f *testing.F) {
	f.Add("vips/192.0.2.1", []byte(`{"node":"n1","since":"2026-11-25T03:00:00Z","released":true}`), int64(7), false)
	f.Add("nodes/n1", []byte(`{"instance":"i","addresses":["192.0.2.1"],"unable":["192.0.2.1"],"drained":true}`), int64(7), false)
	f.Add("vips/::ffff:192.0.2.1", []byte(`{"node":"n1"}`), int64(0), true)
	f.Fuzz(func(t *testing.T, name string, value []byte, lease int64, deleted bool) {
		c, ok := change(Key{Name: name, Value: value, Lease: lease, Deleted: deleted, Revision: 3})
		if !ok {
			return
		}
		if c.Reset || (c.Node == "") == (c.Address == netip.Addr{}) || c.Node != "" && !cluster.NodeName(c.Node) || c.Revision != 3 {
			t.Errorf("%q: %+v", name, c)
		}
		if deleted != (c.Record == nil && c.Holder == nil) {
			t.Errorf("%q: deleted %t, and %+v", name, deleted, c)
		}
		if n := c.Record; n != nil && (n.Lease != lease || lease == 0 && !n.Drained) {
			t.Errorf("%q: %+v", name, n)
		}
		if h := c.Holder; h != nil && (h.Lease != lease || h.Malformed == "" && (lease == 0 || !cluster.NodeName(h.Node)) || h.Malformed != "" && (h.Released || h.Node != "")) {
			t.Errorf("%q: %+v", name, h)
		}
	})
}

func TestDial(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	https := []string{"https://127.0.0.1:1"}
	for _, c := range []struct {
		name string
		Config
		want string
	}{
		{"plain", Config{Endpoints: []string{"http://127.0.0.1:1"}, CA: "/nonexistent"}, ""},
		{"the system's authorities", Config{Endpoints: https}, ""},
		{"no CA file", Config{Endpoints: https, CA: "/nonexistent"}, "ca: open /nonexistent"},
		{"CA file of something else", Config{Endpoints: https, CA: junk}, "holds no certificate"},
		{"no certificate", Config{Endpoints: https, Cert: "/nonexistent", Key: junk}, "cert, key: open /nonexistent"},
		{"certificate of something else", Config{Endpoints: https, Cert: junk, Key: junk}, "cert, key: "},
	} {
		client, err := Dial(c.Config)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if client != nil {
			_ = client.Close()
		}
	}
}
