package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// foreign attaches a program that refuses nothing and stamps with 3, as others do: before
// all that is there, or behind.
func foreign(t testing.TB, a Attachment, first bool) judge {
	t.Helper()
	j := newJudge(t, 0, 3)
	if a.Kind == Clsact {
		f := a.filterOf(j, 5, 0)
		if first {
			f = a.filterOf(j, priority, 1)
		}
		must(t, a.rtnl(func(h *netlink.Handle) error {
			c := clsact{a: a, h: h}
			if err := h.QdiscAdd(c.qdisc()); err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
			return h.FilterAdd(f)
		}))
		return j
	}
	anchor := link.Anchor(nil)
	if first {
		anchor = link.Head()
	}
	foreignLink(t, a, j, anchor)
	return j
}

func foreignLink(t testing.TB, a Attachment, j judge, anchor link.Anchor) (l link.Link) {
	t.Helper()
	must(t, inNetNS(a.NetNS, func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: a.Interface, Program: j.Program, Attach: a.Direction.attachType(), Anchor: anchor})
		return err
	}))
	t.Cleanup(func() { l.Close() })
	return l
}

// filterOf is a direct-action filter at the hook; handle 0 leaves the choice to the kernel.
func (a Attachment) filterOf(j judge, priority uint16, handle uint32) *netlink.BpfFilter {
	return &netlink.BpfFilter{Fd: j.FD(), Name: "foreign", DirectAction: true, FilterAttrs: netlink.FilterAttrs{LinkIndex: a.Interface,
		Parent: a.Direction.parent(), Priority: priority, Handle: handle, Protocol: unix.ETH_P_ALL}}
}

// rtnl runs fn with rtnetlink in the namespace of the attachment.
func (a Attachment) rtnl(fn func(h *netlink.Handle) error) error {
	h, err := rtnetlink(a.NetNS)
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

// order is the programs of the hook, first to last: tcx, then clsact.
func order(t testing.TB, a Attachment) (ids []ebpf.ProgramID) {
	t.Helper()
	attached, err := a.programs()
	must(t, err)
	for _, p := range attached {
		ids = append(ids, p.ID)
	}
	must(t, a.rtnl(func(h *netlink.Handle) error {
		filters, err := h.FilterList(device(a.Interface), a.Direction.parent())
		for _, f := range filters {
			ids = append(ids, ebpf.ProgramID(f.(*netlink.BpfFilter).Id))
		}
		return err
	}))
	return ids
}

func TestForeignProgramsStay(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		one, two := newJudge(t, 1, 1), newJudge(t, 2, 2)
		behind := foreign(t, a, false)
		must(t, a.Install(one.Program))
		same(t, "order", order(t, a), []ebpf.ProgramID{id(t, one.Program), id(t, behind.Program)})
		same(t, "kind 1 refused, the rest stamped behind", r.passed(t, 10), arrived{2: {3: 10}})
		if one.judged(t) != 20 || behind.judged(t) != 10 {
			t.Errorf("ours saw %d frames of 20, the one behind %d of 10", one.judged(t), behind.judged(t))
		}
		if s := status(t, a); s.Before != nil {
			t.Errorf("status: %+v", s)
		}
		before := foreign(t, a, true)
		must(t, a.Install(two.Program))
		ids := []ebpf.ProgramID{id(t, before.Program), id(t, two.Program), id(t, behind.Program)}
		same(t, "order", order(t, a), ids)
		want := a.inForce(r.Ifi[a.Direction].Name, ids[1])
		want.Before = ids[:1]
		same(t, "status", status(t, a), want)
		same(t, "kind 2 refused", r.passed(t, 10), arrived{1: {3: 10}})
		if before.judged(t) != 20 || behind.judged(t) != 20 {
			t.Errorf("the one before saw %d frames of 20, the one behind %d of 20", before.judged(t), behind.judged(t))
		}
		must(t, a.Remove())
		same(t, "order after Remove", order(t, a), []ebpf.ProgramID{ids[0], ids[2]})
		same(t, "removed", r.passed(t, 10), arrived{1: {3: 10}, 2: {3: 10}})
	})
}

func TestForeignPins(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		a := r.way(TCX, Egress)
		one, other := newJudge(t, 1, 1), newJudge(t, 0, 3)
		must(t, os.MkdirAll(a.Dir, 0o700))
		refused := func(what, want string) {
			t.Helper()
			_, statusErr := a.Status()
			for call, err := range map[string]error{"Install": a.Install(one.Program), "Remove": a.Remove(), "Status": statusErr} {
				if !errors.Is(err, ErrForeign) || !strings.Contains(fmt.Sprint(err), want) || !strings.Contains(fmt.Sprint(err), a.Pin()) {
					t.Errorf("%s, where %s is pinned: %v, want %q", call, what, err, want)
				}
			}
			if _, err := os.Stat(a.Pin()); err != nil {
				t.Errorf("%s: %v", what, err)
			}
			same(t, what+" leaves nothing", len(order(t, a)), 0)
			must(t, os.Remove(a.Pin()))
		}
		m, err := newCounts(1)
		must(t, err)
		defer m.Close()
		must(t, m.Pin(a.Pin()))
		refused("a map", "no link")

		inward := a
		inward.Direction = Ingress
		l := foreignLink(t, inward, other, nil)
		must(t, l.Pin(a.Pin()))
		refused("the other direction's link", ebpf.AttachTCXIngress.String())

		sink, err := r.Sink(0, "sink")
		must(t, err)
		beside := a
		beside.Interface = sink.Index
		l = foreignLink(t, beside, other, nil)
		must(t, l.Pin(a.Pin()))
		refused("another interface's link", fmt.Sprintf("index %d", sink.Index))

		must(t, r.Do(1, func() error { return add("twin", a.Interface+100) }))
		must(t, r.Do(0, func() error { return add("twin", a.Interface+100) }))
		a.Interface += 100
		elsewhere := a
		elsewhere.NetNS = int(r.NS[1])
		l = foreignLink(t, elsewhere, other, nil)
		must(t, l.Pin(a.Pin()))
		refused("the link of another namespace's interface of that index", "another network namespace")
	})
}

// add makes a device in the namespace of the thread.
func add(name string, index int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Index = name, index
	return netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
}

func remove(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

func TestInterfaceMadeAnew(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		one := newJudge(t, 1, 1)
		must(t, r.Do(0, func() error { return add("dev", 77) }))
		a.Interface, a.NetNS = 77, int(r.NS[0])
		must(t, a.Install(one.Program))
		must(t, r.Do(0, func() error {
			l, err := netlink.LinkByIndex(77)
			if err != nil {
				return err
			}
			return netlink.LinkSetName(l, "renamed")
		}))
		in, gone := a.inForce("renamed", id(t, one.Program)), State{Pinned: a.Kind == TCX}
		same(t, "renamed", status(t, a), in)

		must(t, r.Do(0, func() error { return remove("renamed") }))
		same(t, "deleted", status(t, a), gone)
		if err := a.Install(one.Program); !errors.Is(err, ErrNoInterface) || !strings.Contains(err.Error(), "77") {
			t.Errorf("Install where the interface is gone: %v", err)
		}
		same(t, "still deleted", status(t, a), gone)

		must(t, r.Do(0, func() error { return add("dev", 78) }))
		same(t, "made anew", status(t, a), gone)
		anew := a
		anew.Interface = 78
		same(t, "the new one", status(t, anew), State{Name: "dev"})

		must(t, r.Do(0, func() error { return add("same", 77) }))
		same(t, "made anew with its index", status(t, a), State{Name: "same", Pinned: gone.Pinned})
		must(t, a.Install(one.Program))
		in.Name = "same"
		same(t, "installed anew", status(t, a), in)

		must(t, r.Do(0, func() error { return remove("same") }))
		must(t, a.Remove())
		if _, err := os.Stat(a.Pin()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the pin: %v", err)
		}
	})
}

func TestInterfaceMovedAway(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		a := r.way(TCX, Egress)
		one := newJudge(t, 1, 1)
		must(t, r.Do(0, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Index = "goes", 77
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "stays"})
		}))
		a.Interface = 77
		must(t, a.Install(one.Program))
		must(t, r.Do(0, func() error {
			l, err := netlink.LinkByIndex(77)
			if err != nil {
				return err
			}
			return netlink.LinkSetNsFd(l, int(r.NS[1]))
		}))
		if s, err := a.Status(); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "another network namespace") {
			t.Errorf("status: %+v, %v", s, err)
		}
		a.NetNS = int(r.NS[1])
		same(t, "there", status(t, a), a.inForce("goes", id(t, one.Program)))
		must(t, a.Remove())
	})
}

func TestDetachedByOthers(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		one := newJudge(t, 1, 1)
		must(t, a.Install(one.Program))
		if a.Kind == Clsact {
			must(t, a.rtnl(func(h *netlink.Handle) error { return h.QdiscDel((&clsact{a: a}).qdisc()) }))
		} else {
			l, err := link.LoadPinnedLink(a.Pin(), nil)
			must(t, err)
			defer l.Close()
			must(t, l.Detach())
		}
		same(t, "detached", status(t, a), State{Name: r.Ifi[a.Direction].Name, Pinned: a.Kind == TCX})
		must(t, a.Install(one.Program))
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
		if a.Kind == TCX { // a link that someone holds ends all the same
			held, err := link.LoadPinnedLink(a.Pin(), nil)
			must(t, err)
			defer held.Close()
		}
		must(t, a.Remove())
		same(t, "removed", r.passed(t, 10), arrived{1: {10}, 2: {10}})
	})
}

func TestInstallsAtOnce(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		for round := range 4 {
			installers(t, a, 4)
			if s := status(t, a); !s.Attached || len(order(t, a)) != 1 {
				t.Errorf("round %d: %+v, programs %v", round, s, order(t, a))
			}
			if round%2 == 1 { // else the next ones adopt
				must(t, a.Remove())
			}
		}
		same(t, "programs left", len(order(t, a)), 0)
	})
}

func TestErrorsNameTheLack(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		good := r.way(TCX, Egress)
		one := newJudge(t, 1, 1)
		tmp := t.TempDir()
		// What `ip netns exec` does, in a mount namespace of its own too.
		must(t, unix.Unmount("/sys", unix.MNT_DETACH))
		must(t, unix.Mount("sysfs", "/sys", "sysfs", 0, ""))
		in := func(dir string) Attachment { a := good; a.Dir = dir; return a }
		at := func(index int) Attachment { a := good; a.Interface = index; return a }
		for _, tt := range []struct {
			a    Attachment
			is   error
			want string
		}{
			{in(filepath.Join(tmp, "a", "b")), ErrNoBPFFS, "mount -t bpf"},
			{in("/sys/fs/bpf/postern"), ErrNoBPFFS, "ip netns exec"},
			{in(filepath.Join(r.bpffs, "eth0.1")), fs.ErrPermission, "no dot"},
			{at(4711), ErrNoInterface, "4711"},
			{at(0), ErrNoInterface, "index 0"},
			{at(1 << 32), ErrNoInterface, "4294967296"},
			{Attachment{Direction: 2, Interface: 1, Dir: good.Dir}, nil, "neither"},
		} {
			err := tt.a.Install(one.Program)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: %v, want %q", tt.a, err, tt.want)
			}
			if _, err := tt.a.Status(); tt.is == ErrNoBPFFS && !errors.Is(err, ErrNoBPFFS) {
				t.Errorf("status of %+v: %v", tt.a, err)
			}
		}
		if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 0 {
			t.Errorf("made directories outside of a bpffs: %v, %v", entries, err)
		}
		xdp, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: pass})
		must(t, err)
		defer xdp.Close()
		if err := good.Install(xdp); err == nil || !strings.Contains(err.Error(), "SchedCLS") {
			t.Errorf("a program of type XDP: %v", err)
		}
		must(t, child("unprivileged", in(r.bpffs)).Run())
	})
}

// unprivileged reports where errors do not say that rights are missing.
func unprivileged() error {
	if err := syscall.Setresuid(65534, 65534, 65534); err != nil {
		return err
	}
	_, statusErr := Attachment{Interface: 1, Dir: os.Getenv("TC_DIR")}.Status()
	for want, err := range map[string]error{"CAP_BPF and CAP_NET_ADMIN": Probe(), "root": statusErr} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), want) || errors.Is(err, ErrNotSupported) {
			return fmt.Errorf("without rights: %w, want %q", err, want)
		}
	}
	return nil
}

func TestErrorsOfOldKernels(t *testing.T) {
	for _, tt := range []struct {
		err, is error
		want    []string
	}{
		{fmt.Errorf("link: %w", ebpf.ErrNotSupported), ErrNotSupported, []string{"Linux 6.6", "CONFIG_NET_XGRESS"}},
		{unix.EPERM, fs.ErrPermission, []string{"CAP_BPF", "CAP_NET_ADMIN"}},
		{unix.ENOMEM, unix.ENOMEM, []string{"attach: "}},
	} {
		err := explainTCX("attach", tt.err)
		for _, want := range tt.want {
			if !errors.Is(err, tt.is) || !errors.Is(err, tt.err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v, want %q", tt.err, err, want)
			}
		}
		if errors.Is(err, ErrNotSupported) != (tt.is == ErrNotSupported) {
			t.Errorf("%v: %v", tt.err, err)
		}
	}
}
