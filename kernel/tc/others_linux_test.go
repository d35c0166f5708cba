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

// foreign attaches a program that refuses nothing and stamps with 3, as others do.
func foreign(t testing.TB, a Attachment, anchor link.Anchor) (judge, link.Link) {
	t.Helper()
	j := newJudge(t, 0, 3)
	var l link.Link
	must(t, a.inNetNS(func() (err error) {
		l, err = link.AttachTCX(link.TCXOptions{Interface: a.Interface, Program: j.Program, Attach: a.Direction.attachType(), Anchor: anchor})
		return err
	}))
	t.Cleanup(func() { l.Close() })
	return j, l
}

// order is the programs of the hook, first to last.
func order(t testing.TB, a Attachment) (ids []ebpf.ProgramID) {
	t.Helper()
	_, attached, err := a.device()
	must(t, err)
	for _, p := range attached {
		ids = append(ids, p.ID)
	}
	return ids
}

func TestForeignProgramsStay(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		one, two := newJudge(t, 1, 1), newJudge(t, 2, 2)
		behind, _ := foreign(t, a, nil)
		must(t, a.Install(one.Program))
		same(t, "order", order(t, a), []ebpf.ProgramID{id(t, one.Program), id(t, behind.Program)})
		same(t, "kind 1 refused, the rest stamped behind", r.passed(t, 10), arrived{2: {3: 10}})
		if one.judged(t) != 20 || behind.judged(t) != 10 {
			t.Errorf("ours saw %d frames of 20, the one behind %d of 10", one.judged(t), behind.judged(t))
		}
		if s := status(t, a); s.Before != nil {
			t.Errorf("status: %+v", s)
		}
		before, _ := foreign(t, a, link.Head())
		must(t, a.Install(two.Program))
		ids := []ebpf.ProgramID{id(t, before.Program), id(t, two.Program), id(t, behind.Program)}
		same(t, "order", order(t, a), ids)
		same(t, "status", status(t, a), State{Name: r.Ifi[a.Direction].Name, Pinned: true, Attached: true, Program: ids[1], Before: ids[:1]})
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
		a := r.way(Egress)
		one := newJudge(t, 1, 1)
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
		_, l := foreign(t, inward, nil)
		must(t, l.Pin(a.Pin()))
		refused("the other direction's link", ebpf.AttachTCXIngress.String())

		sink, err := r.Sink(0, "sink")
		must(t, err)
		beside := a
		beside.Interface = sink.Index
		_, l = foreign(t, beside, nil)
		must(t, l.Pin(a.Pin()))
		refused("another interface's link", fmt.Sprintf("index %d", sink.Index))

		must(t, r.Do(1, func() error { return add("twin", a.Interface+100) }))
		must(t, r.Do(0, func() error { return add("twin", a.Interface+100) }))
		a.Interface += 100
		elsewhere := a
		elsewhere.NetNS = int(r.NS[1])
		_, l = foreign(t, elsewhere, nil)
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
		in := State{Name: "renamed", Pinned: true, Attached: true, Program: id(t, one.Program)}
		same(t, "renamed", status(t, a), in)

		must(t, r.Do(0, func() error { return remove("renamed") }))
		same(t, "deleted", status(t, a), State{Pinned: true})
		if err := a.Install(one.Program); !errors.Is(err, ErrNoInterface) || !strings.Contains(err.Error(), "77") {
			t.Errorf("Install where the interface is gone: %v", err)
		}
		same(t, "still deleted", status(t, a), State{Pinned: true})

		must(t, r.Do(0, func() error { return add("dev", 78) }))
		same(t, "made anew", status(t, a), State{Pinned: true})
		anew := a
		anew.Interface = 78
		same(t, "the new one", status(t, anew), State{Name: "dev"})

		must(t, r.Do(0, func() error { return add("same", 77) }))
		same(t, "made anew with its index", status(t, a), State{Name: "same", Pinned: true})
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
		a := r.way(Egress)
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
		same(t, "there", status(t, a), State{Name: "goes", Pinned: true, Attached: true, Program: id(t, one.Program)})
		must(t, a.Remove())
	})
}

func TestDetachedByOthers(t *testing.T) {
	each(t, func(t *testing.T, r room, a Attachment) {
		one := newJudge(t, 1, 1)
		must(t, a.Install(one.Program))
		l, err := link.LoadPinnedLink(a.Pin(), nil)
		must(t, err)
		defer l.Close()
		must(t, l.Detach())
		same(t, "detached", status(t, a), State{Name: r.Ifi[a.Direction].Name, Pinned: true})
		must(t, a.Install(one.Program))
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})

		held, err := link.LoadPinnedLink(a.Pin(), nil) // a link that someone holds ends all the same
		must(t, err)
		defer held.Close()
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
		good := r.way(Egress)
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
		{fmt.Errorf("link: %w", ebpf.ErrNotSupported), ErrNotSupported, []string{"Linux 6.6", "clsact", "not built"}},
		{unix.EPERM, fs.ErrPermission, []string{"CAP_BPF", "CAP_NET_ADMIN"}},
		{unix.ENOMEM, unix.ENOMEM, []string{"attach: "}},
	} {
		err := explain("attach", tt.err)
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
