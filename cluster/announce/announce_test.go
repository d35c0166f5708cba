package announce

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mdlayher/arp"
)

var (
	mine  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	other = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	vip   = netip.MustParseAddr("192.0.2.10")
)

// wire is a socket whose frames are noted with the time.
type wire struct {
	net.PacketConn
	began time.Time
	mu    sync.Mutex
	wrote []frame
	in    chan []byte
}

type frame struct {
	at time.Duration
	*arp.Packet
}

func (w *wire) WriteTo(b []byte, _ net.Addr) (int, error) {
	if p, ok := parse(b); ok && len(b) == 60 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wrote = append(w.wrote, frame{time.Since(w.began), p})
	}
	return len(b), nil
}

func (w *wire) sent() []frame {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wrote
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	f, ok := <-w.in
	if !ok {
		return 0, nil, net.ErrClosed
	}
	return copy(b, f), nil, nil
}

// hears has something come in.
func (w *wire) hears(t *testing.T, op arp.Operation, from net.HardwareAddr, sender, target netip.Addr) {
	t.Helper()
	b, err := marshal(op, from, sender, target, make(net.HardwareAddr, 6))
	if err != nil {
		t.Fatal(err)
	}
	w.in <- b
}

// voice is one on one interface, without a socket. Call it in a synctest bubble.
func voice(t *testing.T, o Options) (*Voice, *wire, func(time.Duration)) {
	w := &wire{began: time.Now(), in: make(chan []byte)}
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	if o.Conflict == nil {
		o.Conflict = func(netip.Addr, net.HardwareAddr) {}
	}
	p := newPort(o, "eth0")
	p.socket, p.mac = w, mine
	v := &Voice{ports: map[netip.Addr]*port{}}
	for a := vip; a != netip.MustParseAddr("192.0.3.10"); a = a.Next() {
		v.ports[a] = p
	}
	ctx := t.Context()
	go p.send(ctx)
	go p.receive(ctx)
	t.Cleanup(func() { close(w.in) })
	return v, w, func(d time.Duration) { time.Sleep(d); synctest.Wait() }
}

var steady = Options{Count: 3, Interval: time.Second, Refresh: time.Minute, Rate: 100, Burst: 20, Defend: 10 * time.Second, Probe: time.Second}

func TestAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, w, pass := voice(t, steady)
		v.Announce(vip)
		pass(time.Millisecond)
		if len(w.sent()) != 2 {
			t.Fatalf("%d frames at once", len(w.sent()))
		}
		for i, want := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
			if f := w.sent()[i]; f.Operation != want || f.SenderIP != vip || f.TargetIP != vip || f.SenderHardwareAddr.String() != mine.String() {
				t.Errorf("%+v", f.Packet)
			}
		}
		pass(30 * time.Second)
		if len(w.sent()) != 6 || w.sent()[5].at > 3*time.Second {
			t.Errorf("%d frames after 30 s", len(w.sent()))
		}
		pass(5 * time.Minute)
		if k := len(w.sent()); k < 6+8 || k > 6+10 {
			t.Errorf("%d frames after 5 minutes", k)
		}
		v.Silence(vip)
		k := len(w.sent())
		pass(time.Hour)
		if len(w.sent()) != k {
			t.Errorf("%d frames when silent", len(w.sent())-k)
		}
	})
}

// The first announcements of all addresses come before any is repeated, at no more than the rate.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, w, pass := voice(t, steady)
		var n int
		for a := range v.ports {
			v.Announce(a)
			n++
		}
		pass(time.Hour / 2)
		first, firsts := map[netip.Addr]bool{}, time.Duration(0)
		sent := w.sent()
		for i, f := range sent {
			if !first[f.SenderIP] {
				first[f.SenderIP], firsts = true, f.at
			} else if len(first) < n && f.Operation == arp.OperationRequest {
				t.Fatalf("frame %d repeats an announcement before all were made once", i)
			}
			// In any second from here, at most the rate and what was saved up.
			j := i + steady.Rate + steady.Burst + 2
			if j < len(sent) && sent[j].at-f.at < time.Second {
				t.Fatalf("%d frames in %v", j-i, sent[j].at-f.at)
			}
		}
		if want := time.Duration(2*n-steady.Burst) * time.Second / 100; firsts > want+time.Second || firsts < want-time.Second {
			t.Errorf("%d addresses took %v, want about %v", n, firsts, want)
		}
	})
}

func TestDefend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := steady
		var told atomic.Int32
		o.Conflict = func(a netip.Addr, by net.HardwareAddr) {
			told.Add(1)
			if a != vip || by.String() != other.String() {
				t.Errorf("%v by %v", a, by)
			}
		}
		v, w, pass := voice(t, o)
		v.Announce(vip)
		pass(20 * time.Second)
		k := len(w.sent())
		w.hears(t, arp.OperationReply, mine, vip, vip)                                 // ourselves
		w.hears(t, arp.OperationRequest, other, netip.MustParseAddr("192.0.2.1"), vip) // who asks
		w.in <- []byte("no frame")
		pass(time.Second)
		if len(w.sent()) != k || told.Load() != 0 {
			t.Errorf("%d frames, told %d times, of nothing", len(w.sent())-k, told.Load())
		}
		for range 5 {
			w.hears(t, arp.OperationReply, other, vip, vip)
		}
		pass(time.Second)
		if len(w.sent()) != k+2 || told.Load() != 1 {
			t.Errorf("defended by %d frames, told %d times", len(w.sent())-k, told.Load())
		}
		pass(10 * time.Second)
		w.hears(t, arp.OperationRequest, other, vip, vip)
		pass(time.Second)
		if len(w.sent()) != k+4 || told.Load() != 2 {
			t.Errorf("later: defended by %d frames, told %d times", len(w.sent())-k, told.Load())
		}
	})
}

func TestProbe(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(t *testing.T, w *wire)
		inUse  bool
	}{
		{"nobody", func(*testing.T, *wire) {}, false},
		{"its user", func(t *testing.T, w *wire) { w.hears(t, arp.OperationReply, other, vip, netip.IPv4Unspecified()) }, true},
		{"another who probes", func(t *testing.T, w *wire) {
			w.hears(t, arp.OperationRequest, other, netip.IPv4Unspecified(), vip)
		}, true},
		{"the user of another", func(t *testing.T, w *wire) {
			w.hears(t, arp.OperationReply, other, netip.MustParseAddr("192.0.2.1"), vip)
		}, false},
		{"ourselves", func(t *testing.T, w *wire) { w.hears(t, arp.OperationReply, mine, vip, vip) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, w, pass := voice(t, steady)
				done := make(chan error, 1)
				began := time.Now()
				go func() { done <- v.Probe(t.Context(), vip) }()
				pass(1500 * time.Millisecond)
				c.answer(t, w)
				err := <-done
				took := time.Since(began)
				if errors.Is(err, ErrInUse) != c.inUse || (err == nil) == c.inUse {
					t.Errorf("%v", err)
				}
				if c.inUse {
					return
				}
				if len(w.sent()) != 3 || took < 4*time.Second || took > 7*time.Second {
					t.Errorf("%d probes in %v", len(w.sent()), took)
				}
				for _, f := range w.sent() {
					if f.Operation != arp.OperationRequest || !f.SenderIP.IsUnspecified() || f.TargetIP != vip {
						t.Errorf("%+v", f.Packet)
					}
				}
			})
		})
	}
}

func TestNoInterface(t *testing.T) {
	o := steady
	o.Listen = func(*net.Interface) (net.PacketConn, error) { return nil, os.ErrPermission }
	for name, want := range map[string]string{"nonexistent": "interface nonexistent", "lo": "no Ethernet"} {
		if _, err := New(t.Context(), o, map[netip.Addr]string{vip: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
