package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/postern-fw/postern/relay"
	"github.com/postern-fw/postern/relay/binding"
)

// relayConfig is a listener on no interface that is there, so that it needs no rights.
func relayConfig(t *testing.T) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	file = filepath.Join(dir, "relay.yaml")
	must(t, os.WriteFile(file, []byte("mode: snoop\ndatabase: "+dir+"/db\ninterfaces: [{names: [none-such]}]\n"+
		"static: [{mac: '02:00:00:00:00:50', ip: 10.1.0.50, interface: veth5}]\n"), 0o600))
	return file, dir
}

func command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(args, nil, &o, &e)
	return code, o.String(), e.String()
}

// bindingsCommands is the life of bindings on the command line.
func bindingsCommands(t *testing.T, config, dir string, static int) {
	t.Helper()
	leases := filepath.Join(dir, "leases")
	must(t, os.WriteFile(leases, []byte("0 02:00:00:00:00:01 10.1.0.100 * 01:02\n0 02:00:00:00:00:02 10.1.0.101 * *\n"), 0o600))
	for _, tt := range []struct {
		args  string
		code  int
		lines int
		want  string
	}{
		{"list", 0, static, ""},
		{"import --format dnsmasq --interface veth1 --vlan 5 " + leases, 0, 1, "2 bindings"},
		{"list", 0, 2 + static, "10.1.0.100       02:00:00:00:00:01  veth1:5           for ever"},
		{"list --json", 0, 2 + static, `{"ip":"10.1.0.100","mac":"02:00:00:00:00:01","interface":"veth1","vlan":5,"client_id":"AQI=","server":"0.0.0.0"}`},
		{"show 10.1.0.101", 0, 1, "02:00:00:00:00:02"},
		{"show 02:00:00:00:00:02", 0, 1, "10.1.0.101"},
		{"show veth1", 0, 2, "10.1.0.101"},
		{"show --json 10.1.0.101", 0, 1, `{"ip":"10.1.0.101","mac":"02:00:00:00:00:02","interface":"veth1","vlan":5,"server":"0.0.0.0"}`},
		{"show 10.9.9.9", 1, 0, ""},
		{"export", 0, 2 + static, `"ip":"10.1.0.100"`},
		{"export --format dnsmasq", 0, 2 + static, "0 02:00:00:00:00:01 10.1.0.100 * 01:02"},
		{"export --format isc", 0, -1, "lease 10.1.0.101 {"},
		{"export --format kea", 0, -1, "10.1.0.101,02:00:00:00:00:02,"},
		{"export --format bind", 2, 0, ""},
		{"delete 10.1.0.100", 0, 0, ""},
		{"delete 10.1.0.100", 1, 0, ""},
		{"delete ten", 2, 0, ""},
		{"list", 0, 1 + static, "10.1.0.101"},
		{"import --format dnsmasq " + leases, 2, 0, ""},
		{"import --format kea --interface veth1 " + leases, 1, 0, ""},
		{"import --interface veth1 " + leases + ".none", 2, 0, ""},
	} {
		code, out, errs := command(t, append(strings.Fields("bindings "+tt.args), "-c", config)...)
		if code != tt.code || !strings.Contains(out, tt.want) || tt.lines >= 0 && strings.Count(out, "\n") != tt.lines || (code != 0) != (errs != "") {
			t.Errorf("bindings %s: %d, want %d\n%s%s", tt.args, code, tt.code, out, errs)
		}
	}
}

// What "export" has written "import" takes.
func TestBindingsJSON(t *testing.T) {
	config, dir := relayConfig(t)
	file := filepath.Join(dir, "json")
	for _, text := range []string{`{"ip":"10.1.0.7","mac":"02:00:00:00:00:07","interface":"veth7","client_id":"AQI=","server":"192.0.2.53","expiry":4102444800000000000}` + "\n", ""} {
		must(t, os.WriteFile(file, []byte(text), 0o600))
		if code, out, errs := command(t, "bindings", "import", "-c", config, file); code != 0 {
			t.Errorf("%d: %s%s", code, out, errs)
		}
	}
	code, out, _ := command(t, "bindings", "export", "-c", config)
	if want := `{"ip":"10.1.0.7","mac":"02:00:00:00:00:07","interface":"veth7","client_id":"AQI=","server":"192.0.2.53","expiry":4102444800000000000}` + "\n"; code != 0 || out != want {
		t.Errorf("%d: %q, want %q", code, out, want)
	}
	must(t, os.WriteFile(file, []byte(`{"ip":"ten"}`), 0o600))
	if code, _, errs := command(t, "bindings", "import", "-c", config, file); code != 1 || !strings.Contains(errs, "is no IPv4 address") {
		t.Errorf("%d: %s", code, errs)
	}
}

// An event, for people and for programs.
func TestRelayEvent(t *testing.T) {
	sender := binding.MAC{2, 0, 0, 0, 0, 9}
	e := relay.Event{Time: time.Date(2026, 11, 25, 2, 41, 43, 0, time.UTC), Reason: "giaddr-from-a-client", Interface: "veth1", VLAN: 7, Sender: &sender,
		MAC: binding.MAC{2, 0, 0, 0, 0, 8}, Type: 1, XID: 0x3903f326}
	for asJSON, want := range map[bool]string{
		true: `{"time":"2026-11-25T02:41:43Z","reason":"giaddr-from-a-client","interface":"veth1","vlan":7,` +
			`"sender":"02:00:00:00:00:09","mac":"02:00:00:00:00:08","type":1,"xid":956560166}` + "\n",
		false: "2026-11-25 02:41:43.000000  giaddr-from-a-client          veth1:7 02:00:00:00:00:09  chaddr 02:00:00:00:00:08  type 1  xid 0x3903f326\n",
	} {
		var out bytes.Buffer
		r := relayCommand{t: newTerm(nil, &out, io.Discard), asJSON: asJSON}
		if r.print(&e); out.String() != want {
			t.Errorf("%q, want %q", out.String(), want)
		}
	}
}

// Without a relay the database is read, with one it is asked.
func TestBindings(t *testing.T) {
	config, dir := relayConfig(t)
	bindingsCommands(t, config, dir, 0)

	config, dir = relayConfig(t)
	ctx, stop := context.WithCancel(t.Context())
	var out, errs syncBuffer
	ended := make(chan int, 1)
	metrics := filepath.Join(dir, "metrics")
	go func() {
		ended <- newTerm(nil, &out, &errs).run(ctx, []string{"relay", "-c", config, "--metrics", "unix:" + metrics})
	}()
	eventually(t, "the relay is ready", func() bool { return strings.Contains(errs.String(), "ready") })
	if _, err := binding.Open(dir + "/db"); err == nil {
		t.Error("the database can be opened twice")
	}
	bindingsCommands(t, config, dir, 1)
	if code, _, errs := command(t, "bindings", "delete", "10.1.0.50", "-c", config); code != 3 || !strings.Contains(errs, "in the configuration") {
		t.Errorf("a static binding is deleted: %d, %s", code, errs)
	}
	if code, _, errs := command(t, "relay", "-c", config); code != 3 || !strings.Contains(errs, binding.ErrInUse.Error()) {
		t.Errorf("a second relay: %d, %s", code, errs)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", metrics)
	}}}
	r, err := c.Get("http://metrics/metrics")
	must(t, err)
	body, err := io.ReadAll(r.Body)
	must(t, err)
	r.Body.Close()
	if !bytes.Contains(body, []byte("postern_relay_bindings 2\n")) {
		t.Errorf("metrics: %s", body)
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

func TestRelayConfig(t *testing.T) {
	dir := t.TempDir()
	wrong := filepath.Join(dir, "relay.yaml")
	must(t, os.WriteFile(wrong, []byte("mode: relay\n"), 0o600))
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"relay"}, 2, "required"},
		{[]string{"relay", "-c", filepath.Join(dir, "none")}, 2, "no such file"},
		{[]string{"relay", "-c", wrong}, 1, "name those towards clients"},
		{[]string{"bindings", "list", "-c", wrong}, 1, "name those towards clients"},
		{[]string{"bindings", "-c", wrong}, 2, "bindings COMMAND"},
	} {
		if code, _, errs := command(t, tt.args...); code != tt.code || !strings.Contains(errs, tt.want) {
			t.Errorf("%q: %d, want %d: %s", tt.args, code, tt.code, errs)
		}
	}
}

// syncBuffer is written by one goroutine and read by another.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
