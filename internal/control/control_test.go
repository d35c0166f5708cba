//go:build linux

package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
)

// serve answers at a socket of its own until the test ends.
func serve(t *testing.T, s Service) (path string, server *Server) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "1.sock")
	server, err := Listen(path, s)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve() }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path, server
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestStatusAndReload(t *testing.T) {
	wrong := errors.New("policy.yaml:1:1: error: no")
	path, _ := serve(t, Service{
		Status: func() (*kernel.Status, error) { return &kernel.Status{Enforcing: true, Policy: "node"}, nil },
		Reload: func(context.Context) (*kernel.Status, error) { return nil, wrong },
	})
	c := dial(t, path)
	if c.PID != os.Getpid() {
		t.Errorf("PID %d", c.PID)
	}
	if s, err := c.Status(t.Context()); err != nil || s.Policy != "node" || !s.Enforcing {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := c.Reload(t.Context()); s != nil || err == nil || err.Error() != wrong.Error() {
		t.Errorf("%+v, %v", s, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// Every reader gets every event, from the moment at which its request is answered.
func TestEvents(t *testing.T) {
	hub := &Hub{}
	path, server := serve(t, Service{Events: hub})
	frame := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xcc}
	e := &kernel.Event{Time: time.Unix(1, 0).UTC(), Rule: "no-lldp", Reason: firewall.ReasonRule, Interface: "eth0", Index: 2, Len: 14, Frame: frame,
		HasSender: true, Sender: filter.Sender{UID: 3, PID: 4, Comm: "lldpd", Cgroup: "/x"}, Cookie: 5}
	want := Event{Time: e.Time, Verdict: "drop", Rule: "no-lldp", Reason: "rule", Interface: "eth0", Index: 2, Len: 14,
		Frame: "ffffffffffff02000000000188cc", Summary: "0x88cc, 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff", Sender: &Sender{4, "lldpd", 3, "/x", 5}}
	const readers = 3
	got, ended := make(chan Event, readers), make(chan error, readers)
	for range readers {
		c := dial(t, path)
		go func() {
			ended <- c.Events(t.Context(), func(e *Event, lost uint64) error {
				if lost != 0 {
					t.Errorf("%d lost", lost)
				}
				got <- *e
				return nil
			})
		}()
	}
	waitReaders(hub, readers)
	hub.Publish(e)
	for range readers {
		g := <-got
		if *g.Sender != *want.Sender {
			t.Errorf("sender %+v", g.Sender)
		}
		if g.Sender = want.Sender; g != want {
			t.Errorf("got  %+v\nwant %+v", g, want)
		}
	}
	server.Close()
	for range readers {
		if err := <-ended; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the server ended: %v", err)
		}
	}
}

func waitReaders(h *Hub, n int) {
	for len(h.now()) < n {
		runtime.Gosched()
	}
}

func (h *Hub) now() (readers []*Reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.readers {
		readers = append(readers, r)
	}
	return readers
}

// A reader that has enough ends at once, and the hub forgets it.
func TestEventsEnd(t *testing.T) {
	hub := &Hub{}
	path, _ := serve(t, Service{Events: hub})
	enough := errors.New("enough")
	ended := make(chan error)
	go func() {
		ended <- dial(t, path).Events(t.Context(), func(*Event, uint64) error { return enough })
	}()
	waitReaders(hub, 1)
	hub.Publish(&kernel.Event{})
	if err := <-ended; err != enough {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- dial(t, path).Events(ctx, func(*Event, uint64) error { return enough }) }()
	waitReaders(hub, 1)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended by its own will: %v", err)
	}
	for len(hub.now()) > 0 {
		runtime.Gosched()
	}
}

// Nobody holds up another, and who loses events is told.
func TestSlowReader(t *testing.T) {
	hub := &Hub{}
	slow := hub.Read()
	defer slow.Close()
	for range room + 5 {
		hub.Publish(&kernel.Event{})
	}
	if n := slow.Lost(); n != 5 {
		t.Errorf("%d lost", n)
	}
	for range room {
		<-slow.Events
	}
	if n := slow.Lost(); n != 0 {
		t.Errorf("%d lost, again", n)
	}
}

// What a process knows of a frame longer than what it is told makes it not malformed.
func TestCutFrame(t *testing.T) {
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 0}, 0x45, 0, 1, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	whole := NewEvent(&kernel.Event{Len: len(frame), Frame: frame})
	cut := NewEvent(&kernel.Event{Len: 270, Frame: frame})
	if !strings.Contains(whole.Summary, "malformed") || strings.Contains(cut.Summary, "malformed") {
		t.Errorf("%q, %q", whole.Summary, cut.Summary)
	}
}

func TestSecondServer(t *testing.T) {
	path, server := serve(t, Service{})
	_, err := Listen(path, Service{})
	var running *RunningError
	if !errors.As(err, &running) || running.PID != os.Getpid() {
		t.Fatalf("%v", err)
	}
	if _, err := Dial(path); err != nil {
		t.Errorf("the first does not answer any more: %v", err)
	}
	server.Close()
	if _, err := Dial(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("closed: %v", err)
	}
	second, err := Listen(path, Service{})
	if err != nil {
		t.Fatalf("the first has ended: %v", err)
	}
	second.Close()
}

// A socket without an owner is what a killed process leaves behind.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "1.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Dial(path); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	s, err := Listen(path, Service{})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// Others are refused by the socket's mode, and where somebody changed that by name.
func TestOtherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		labtest.Cannot(t, "needs root to become another user")
	}
	path, _ := serve(t, Service{Status: func() (*kernel.Status, error) { return &kernel.Status{Policy: "secret"}, nil }})
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := asNobody(path); !errors.Is(err, os.ErrPermission) {
		t.Errorf("another user connects: %v", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	answer, err := asNobody(path)
	if err != nil || !strings.HasPrefix(answer, "HTTP/1.0 403") || !strings.Contains(answer, "not you, who are user 65534") || strings.Contains(answer, "secret") {
		t.Errorf("%v\n%s", err, answer)
	}
}

// asNobody asks for the status on a thread of another user's.
func asNobody(path string) (answer string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Not unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 65534, ^uintptr(0)); e != 0 {
			err = e
			return
		}
		var c net.Conn
		if c, err = net.Dial("unix", path); err != nil {
			return
		}
		defer c.Close()
		if _, err = io.WriteString(c, "GET /status HTTP/1.0\r\n\r\n"); err != nil {
			return
		}
		var b []byte
		b, err = io.ReadAll(c)
		answer = string(b)
	}()
	<-done
	return answer, err
}

// The lines of /events are what `postern monitor --json` prints.
func TestLine(t *testing.T) {
	b, err := json.Marshal(line{Event: &Event{Rule: "r"}, Lost: 3})
	if err != nil || !strings.Contains(string(b), `"rule":"r"`) || !strings.HasSuffix(string(b), `"sender":null,"lost":3}`) {
		t.Errorf("%s, %v", b, err)
	}
}
