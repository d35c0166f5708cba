package gate

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// handle configures the lab's near namespace.
func handle(t testing.TB, p *lab.Pair, i int) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(p.NS[i])
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func linkByName(t testing.TB, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	must(t, err)
	return l
}

// up waits for the carrier (linkwatch_do_dev): before that frames are lost in silence.
func up(t testing.TB, h *netlink.Handle, l netlink.Link) {
	t.Helper()
	must(t, h.LinkSetUp(l))
	for range 5000 {
		if linkByName(t, h, l.Attrs().Name).Attrs().OperState == netlink.OperUp {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s has no carrier after 5 s", l.Attrs().Name)
}

// veth adds a pair of devices: one in the near namespace, its peer in the far one, both up.
func veth(t testing.TB, p *lab.Pair, name, peer string) (near, far int) {
	t.Helper()
	h, hf := handle(t, p, 0), handle(t, p, 1)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(p.NS[1])}))
	l, lf := linkByName(t, h, name), linkByName(t, hf, peer)
	must(t, hf.LinkSetUp(lf))
	up(t, h, l)
	return l.Attrs().Index, lf.Attrs().Index
}

// expect sends by bypass from a device and says how many must be inspected; none may pass.
func expect(t *testing.T, p *lab.Pair, i *inspector, ifindex, farIndex, inspected int) {
	t.Helper()
	far := receive(t, p, farIndex)
	defer far.link.Close() // one XDP program a device
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, true, ifindex, 5, 64) }))
	if got, seen := far.count(5-inspected), i.seen(ifindex); got != 5-inspected || seen != inspected {
		t.Errorf("of 5 frames %d were inspected, want %d, and %d passed", seen, inspected, got)
	}
}

// A device that is deleted and made anew is guarded before its first frame by kernels that
// follow the name, and by the next Install in any case.
func TestDeviceMadeAnew(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	a, b := veth(t, p, "door", "road")
	install(t, g, Device{Name: "door"})
	expect(t, p, i, a, b, 5)
	h := handle(t, p, 0)
	must(t, h.LinkDel(linkByName(t, h, "door")))
	before := status(t, g)
	if len(before.Guarded()) != 0 {
		t.Errorf("without the device: %+v", before)
	}
	a, b = veth(t, p, "door", "road")
	switch s := status(t, g); {
	case len(s.Devices) == 0 && len(before.Devices) == 0: // before Linux 6.16 the chain ended with its device
	case s.Guarded()[a] != PacketSockets || len(s.Guarded()) != 1:
		t.Errorf("anew, as %d: %+v", a, s)
	default:
		expect(t, p, i, a, b, 5)
	}
	install(t, g, Device{Name: "door"})
	expect(t, p, i, a, b, 5)
}

func TestDeviceRenamed(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	a, b := veth(t, p, "door", "road")
	install(t, g, Device{Name: "door"})
	h := handle(t, p, 0)
	rename := func(name string) {
		t.Helper()
		l, err := h.LinkByIndex(a)
		must(t, err)
		must(t, h.LinkSetDown(l))
		must(t, h.LinkSetName(l, name))
		l = linkByName(t, h, name)
		up(t, h, l)
	}
	rename("hole")
	inspected := 5
	if len(status(t, g).Guarded()) == 0 {
		inspected = 0
	}
	expect(t, p, i, a, b, inspected)
	install(t, g, Device{Name: "hole"})
	expect(t, p, i, a, b, 5)
	rename("door")
	install(t, g, Device{Name: "door"})
	expect(t, p, i, a, b, 5)
}

func TestPattern(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	a, b := veth(t, p, "door1", "road1")
	for _, pattern := range []string{"door*", "*"} {
		t.Run(pattern, func(t *testing.T) {
			err := g.Install(Config{Devices: []Device{{Name: pattern}}})
			if errors.Is(err, ErrNotSupported) {
				cannot(t, "needs a kernel with hooks for all devices of a prefix: "+err.Error())
			}
			must(t, err)
			expect(t, p, i, a, b, 5)
			a2, b2 := veth(t, p, "door2", "road2")
			expect(t, p, i, a2, b2, 5)
			s := status(t, g)
			if g := s.Guarded(); len(s.Devices) != 1 || s.Devices[0].Name != pattern || len(s.Devices[0].Indexes) != len(g) || len(g) < 2 {
				t.Errorf("%+v", s)
			}
			if _, itself := s.Guarded()[s.Inspection]; itself {
				t.Errorf("guards itself: %+v", s)
			}
			h := handle(t, p, 0)
			must(t, h.LinkDel(linkByName(t, h, "door2")))
		})
	}
}

// A guarded device upon a guarded device: each is a door of its own.
func TestStackedDevices(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	i.letGo(true)
	upper := macvlan(t, p, p.NS[0], 0)
	install(t, g, Device{Name: "near"}, Device{Name: "upper"})
	far := receive(t, p, p.Ifi[1].Index)
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0, true, upper, 5, 64) }))
	if got, above, below := far.count(5), i.seen(upper), i.seen(p.Ifi[0].Index); got != 5 || above != 5 || below != 5 {
		t.Errorf("of 5 frames %d arrived, inspected %d above, %d below", got, above, below)
	}
}

// macvlan puts a device named upper on the near one, into namespace i of the lab.
func macvlan(t *testing.T, p *lab.Pair, ns netns.NsHandle, i int) int {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.Namespace = "upper", p.Ifi[0].Index, netlink.NsFd(ns)
	err := handle(t, p, 0).LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE})
	if errors.Is(err, unix.EOPNOTSUPP) {
		cannot(t, "needs a kernel with macvlan")
	}
	must(t, err)
	h := handle(t, p, i)
	l := linkByName(t, h, "upper")
	up(t, h, l)
	return l.Attrs().Index
}

// The sender sits in another network namespace than the guarded device, where meta skuid
// finds no socket.
func TestSenderOfAnotherNamespace(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	upper := macvlan(t, p, p.NS[1], 1)
	install(t, g, Device{Name: "near"})
	far := receive(t, p, p.Ifi[1].Index)
	for _, s := range senders() {
		must(t, p.Do(1, func() error { return s.send(upper, 5) }))
		if got, seen := far.count(0), i.seen(p.Ifi[0].Index); got != 0 || seen != 5 {
			t.Errorf("%s: of 5 frames %d were inspected, %d passed", s.name, seen, got)
		}
	}
}

// The frames wait in the upper device's queue while their sender closes its socket.
func TestSenderThatHasGone(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	upper := macvlan(t, p, p.NS[0], 0)
	err := handle(t, p, 0).QdiscReplace(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: upper, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		Rate:       16000, Buffer: 1 << 20, Limit: 1 << 20, // bytes a second; ticks of 64 ns; bytes
	})
	if errors.Is(err, unix.ENOENT) {
		cannot(t, "needs a kernel with the queueing discipline tbf")
	}
	must(t, err)
	install(t, g, Device{Name: "near"})
	far := receive(t, p, p.Ifi[1].Index)
	must(t, p.Do(0, func() error { return sendPlain(unix.SOCK_RAW, 0x88b5, false, upper, 100, 64) }))
	passed, seen := 0, 0
	for range 100 {
		passed += far.count(0)
		if seen += i.seen(p.Ifi[0].Index); seen >= 100 {
			break
		}
	}
	if passed != 0 || seen != 100 {
		t.Errorf("of 100 frames %d were inspected, %d passed", seen, passed)
	}
}
