package afpacket

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

func TestWriteTo(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	var events []Event
	c := conn(t, p, Raw, testType, &Config{Firewall: judge(refuseEvil), Event: func(e *Event) { events = append(events, *e) }})
	good, evil := frame(p.Ifi[0].HardwareAddr, "good"), frame(p.Ifi[0].HardwareAddr, "evil")

	if n, err := c.WriteTo(good, broadcast); n != len(good) || err != nil {
		t.Fatal(n, err)
	}
	n, err := c.WriteTo(evil, broadcast)
	e := mustBlock(t, err)
	if n != 0 || e.Interface != "near" || e.Rule != "no-evil" || e.Reason != firewall.ReasonRule || e.Len != 60 || e.Sender.PID != uint32(os.Getpid()) {
		t.Errorf("%d, %+v", n, e)
	}
	if want := `blocked on near by rule "no-evil": 0x88b5, `; !strings.Contains(err.Error(), want) {
		t.Errorf("%q does not say %q", err, want)
	}
	if got := far.texts(); got != "good" {
		t.Errorf("arrived: %q", got)
	}
	if len(events) != 1 || events[0].Rule != "no-evil" {
		t.Errorf("events %+v", events)
	}
}

func TestNilConfigAndNilFirewall(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	if _, err := conn(t, p, Raw, 0, nil).WriteTo(frame(p.Ifi[0].HardwareAddr, "open"), broadcast); err != nil {
		t.Error(err)
	}
	var none *firewall.Firewall
	_, err := conn(t, p, Raw, 0, &Config{Firewall: none}).WriteTo(frame(p.Ifi[0].HardwareAddr, "shut"), broadcast)
	if e := mustBlock(t, err); e.Reason != firewall.ReasonNoPolicy {
		t.Errorf("%+v", e)
	}
	if got := far.texts(); got != "open" {
		t.Errorf("arrived: %q", got)
	}
}

// The classifier itself changes the caller's buffer, between check and transmit.
func TestSnapshot(t *testing.T) {
	p := newLab(t)
	for _, typ := range []Type{Raw, Datagram} {
		far := newTap(t, p, 1, p.Ifi[1])
		good := frame(p.Ifi[0].HardwareAddr, "good")
		if typ == Datagram {
			good = good[14:]
		}
		b := bytes.Clone(good)
		to := &Addr{HardwareAddr: bytes.Clone(broadcast.HardwareAddr)}
		c := conn(t, p, typ, testType, &Config{Firewall: judge(func(pkt *filter.Packet) firewall.Decision {
			d := refuseEvil(pkt)
			copy(b[bytes.Index(b, []byte("good")):], "evil")
			to.HardwareAddr[0] = 0x33
			return d
		})})
		if _, err := c.WriteTo(b, to); err != nil {
			t.Fatal(err)
		}
		got := far.frames()
		if len(got) != 1 || !strings.HasPrefix(got[0], string(broadcast.HardwareAddr)) || !strings.Contains(got[0], "test:good") {
			t.Errorf("%v: arrived: %q", typ, got)
		}
	}
}

// Another thread changes the caller's buffer all the time. It is mapped memory,
// which the race detector does not watch.
func TestSnapshotUnderFire(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	b = b[:copy(b, frame(p.Ifi[0].HardwareAddr, "good"))]
	at := bytes.Index(b, []byte("good"))
	var wg sync.WaitGroup
	stop := make(chan bool)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				copy(b[at:], "evil")
				copy(b[at:], "good")
			}
		}
	})
	c := conn(t, p, Raw, testType, &Config{Firewall: judge(refuseEvil)})
	var passed, refused int
	for i := 0; i < 20000 && (i < 2000 || passed == 0 || refused == 0); i++ {
		if _, err := c.WriteTo(b, broadcast); err == nil {
			passed++
		} else {
			mustBlock(t, err)
			refused++
		}
	}
	close(stop)
	wg.Wait()
	if passed == 0 || refused == 0 {
		t.Fatalf("%d passed, %d refused: the buffer did not change", passed, refused)
	}
	for _, f := range far.frames() {
		if strings.Contains(f, "evil") {
			t.Fatalf("unclassified: %q", f)
		}
	}
	t.Logf("%d passed, %d refused", passed, refused)
}

// What Datagram sends is what the kernel would have sent, and what was classified.
func TestDatagramHeader(t *testing.T) {
	p := newLab(t)
	payload := frame(p.Ifi[0].HardwareAddr, "datagram")[14:]
	for _, protocol := range []int{testType, 0x0806, 0, unix.ETH_P_ALL, unix.ETH_P_802_3, unix.ETH_P_802_2} {
		far := newTap(t, p, 1, p.Ifi[1])
		var classified string
		ours := conn(t, p, Datagram, protocol, &Config{Firewall: judge(func(p *filter.Packet) firewall.Decision {
			classified = string(p.Bytes(filter.LayerFrame))
			return accept(p)
		})})
		var theirs *packet.Conn
		in(t, p, 0, func() (err error) { theirs, err = packet.Listen(p.Ifi[0], packet.Datagram, protocol, nil); return err })
		defer theirs.Close()
		for _, c := range []net.PacketConn{ours, theirs} {
			if _, err := c.WriteTo(payload, broadcast); err != nil {
				t.Fatal(err)
			}
		}
		got := far.frames()
		if len(got) != 2 || got[0] != got[1] || got[0] != classified {
			t.Errorf("protocol %#x: classified\n%x, arrived\n%x", protocol, classified, got)
		}
	}
}

func TestInterfaceChanges(t *testing.T) {
	p := newLab(t)
	var seen filter.Meta
	c := conn(t, p, Datagram, testType, &Config{Firewall: judge(func(p *filter.Packet) firewall.Decision {
		seen = *p.Meta()
		if s := p.Meta().IfaceMAC; !bytes.Equal(p.Bytes(filter.LayerFrame)[6:12], s[:]) {
			t.Errorf("source %x, interface %x", p.Bytes(filter.LayerFrame)[6:12], s)
		}
		return accept(p)
	})})
	if _, err := c.WriteTo([]byte("test:"), broadcast); err != nil {
		t.Fatal(err)
	}
	if seen.Iface != "near" || !seen.HasIfaceMAC || !bytes.Equal(seen.IfaceMAC[:], p.Ifi[0].HardwareAddr) || seen.Sender.Comm == "" {
		t.Errorf("%+v, %+v", seen, seen.Sender)
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	in(t, p, 0, func() error {
		link, err := netlink.LinkByName("near")
		return errors.Join(err, netlink.LinkSetHardwareAddr(link, mac), netlink.LinkSetDown(link),
			netlink.LinkSetName(link, "renamed"), netlink.LinkSetUp(link))
	})
	for end := time.Now().Add(5 * time.Second); seen.Iface != "renamed" && time.Now().Before(end); {
		if _, err := c.WriteTo([]byte("test:"), broadcast); err != nil && !errors.Is(err, unix.ENETDOWN) {
			t.Fatal(err)
		}
	}
	if seen.Iface != "renamed" || !bytes.Equal(seen.IfaceMAC[:], mac) {
		t.Errorf("%+v", seen)
	}
	in(t, p, 0, func() error {
		link, err := netlink.LinkByName("renamed")
		return errors.Join(err, netlink.LinkDel(link))
	})
	if _, err := c.WriteTo([]byte("test:"), broadcast); !errors.Is(err, unix.ENXIO) {
		t.Errorf("after the interface is gone: %v", err)
	}
}

func TestRead(t *testing.T) {
	p := newLab(t)
	for _, typ := range []Type{Raw, Datagram} {
		c := conn(t, p, typ, testType, nil)
		var far *Conn
		in(t, p, 1, func() (err error) { far, err = Listen(p.Ifi[1], Raw, 0, nil); return err })
		defer far.Close()
		f := frame(p.Ifi[1].HardwareAddr, "hello")
		if _, err := far.WriteTo(f, broadcast); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, addr, err := c.ReadFrom(b)
		want := f
		if typ == Datagram {
			want = f[14:]
		}
		if err != nil || !bytes.Equal(b[:n], want) || addr.String() != p.Ifi[1].HardwareAddr.String() {
			t.Errorf("%v: %q from %v, %v", typ, b[:n], addr, err)
		}
		c.SetReadDeadline(time.Now().Add(-time.Second))
		if _, addr, err := c.ReadFrom(b); addr != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, %v", addr, err)
		}
		if err := c.SetPromiscuous(true); err != nil {
			t.Error(err)
		}
		group := net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}
		if err := errors.Join(c.JoinGroup(group), c.LeaveGroup(group)); err != nil {
			t.Error(err)
		}
		if s, err := c.Stats(); err != nil || s.Packets == 0 {
			t.Errorf("%+v, %v", s, err)
		}
	}
}

// A Raw Conn does not read what it sends, as one of mdlayher/packet does not.
func TestOwnFramesUnread(t *testing.T) {
	p := newLab(t)
	c := conn(t, p, Raw, unix.ETH_P_ALL, nil)
	if _, err := c.WriteTo(frame(p.Ifi[0].HardwareAddr, "own"), broadcast); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 2048); ; {
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if bytes.Contains(b[:n], []byte("test:own")) {
			t.Fatal("read its own frame")
		}
	}
}

func TestCloseAndDeadline(t *testing.T) {
	p := newLab(t)
	f := frame(p.Ifi[0].HardwareAddr, "x")
	for _, typ := range []Type{Raw, Datagram} {
		c := conn(t, p, typ, testType, nil)
		c.SetWriteDeadline(time.Now().Add(-time.Second))
		if _, err := c.WriteTo(f, broadcast); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: past the deadline: %v", typ, err)
		}
		if n, err := c.WriteBatch([]Message{{Bytes: f, Addr: broadcast}, {Bytes: f, Addr: broadcast}}); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: batch past the deadline: %d, %v", typ, n, err)
		}
		c.SetDeadline(time.Time{})
		if _, err := c.WriteTo(f, broadcast); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if _, err := c.WriteTo(f, broadcast); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%v: closed: %v", typ, err)
		}
		c.Close() // closing twice is harmless
	}
}

func TestConcurrent(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	c := connOn(t, p, dev, Raw, 0, &Config{Firewall: judge(refuseEvil)})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 200 {
				text := fmt.Sprintf("good %d %d", g, i)
				if (g+i)%2 == 0 {
					text = "evil"
				}
				var err error
				if i%3 == 0 {
					_, err = c.WriteBatch([]Message{{Bytes: frame(dev.HardwareAddr, text), Addr: broadcast}, {Bytes: frame(dev.HardwareAddr, text), Addr: broadcast}})
				} else {
					_, err = c.WriteTo(frame(dev.HardwareAddr, text), broadcast)
				}
				if (err != nil) != (text == "evil") {
					t.Errorf("%s: %v", text, err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			h := (*Hook)(nil)
			in(t, p, 0, func() (err error) { h, err = Attach(dev, judge(accept)); return err })
			runtime.Gosched()
			h.Detach()
		}
	})
	wg.Wait()
}

func TestWriteToAllocs(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	f := frame(dev.HardwareAddr, "x")
	ms := make([]Message, 100)
	for i := range ms {
		ms[i] = Message{Bytes: f, Addr: broadcast}
	}
	var to net.Addr = broadcast
	for _, cfg := range []*Config{nil, {Firewall: judge(accept)}} {
		for _, typ := range []Type{Raw, Datagram} {
			c := connOn(t, p, dev, typ, testType, cfg)
			for name, send := range map[string]func() error{
				"WriteTo":    func() error { _, err := c.WriteTo(f, to); return err },
				"WriteBatch": func() error { _, err := c.WriteBatch(ms); return err },
			} {
				n := testing.AllocsPerRun(500, func() {
					if err := send(); err != nil {
						t.Fatal(err)
					}
				})
				if n != 0 && !raceEnabled {
					t.Errorf("%s, type %v, firewall %t: %v allocations", name, typ, cfg != nil, n)
				}
			}
		}
	}
}
