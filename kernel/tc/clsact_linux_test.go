package tc

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// qdiscs are the types of what is at the interface's clsact.
func qdiscs(t testing.TB, a Attachment) (types []string) {
	t.Helper()
	must(t, a.rtnl(func(h *netlink.Handle) error {
		all, err := h.QdiscList(device(a.Interface))
		for _, q := range all {
			if q.Attrs().Parent == netlink.HANDLE_CLSACT {
				types = append(types, q.Type())
			}
		}
		return err
	}))
	return types
}

func TestQdiscIsOurs(t *testing.T) {
	for _, first := range []Direction{Egress, Ingress} {
		t.Run(first.String()+" first", func(t *testing.T) {
			inRoom(t, func(t *testing.T, r room) {
				one := newJudge(t, 1, 1)
				a := r.way(Clsact, Egress)
				a.Direction = first
				b := a
				b.Direction = 1 - first
				for _, order := range [][2]Attachment{{a, b}, {b, a}} {
					must(t, a.Install(one.Program))
					must(t, b.Install(one.Program))
					must(t, a.Install(one.Program)) // keeps the mark
					list, err := List(a.Dir, a.NetNS)
					must(t, err)
					want := map[Attachment]bool{a.listed(): true, b.listed(): true}
					if len(list) != 2 || !want[list[0]] || !want[list[1]] {
						t.Errorf("list: %v", list)
					}
					must(t, order[0].Remove())
					same(t, "the other one needs it", qdiscs(t, a), []string{"clsact"})
					if s := status(t, order[1]); !s.Attached {
						t.Errorf("the other one: %+v", s)
					}
					must(t, order[1].Remove())
					same(t, "nobody needs it", qdiscs(t, a), []string(nil))
				}
			})
		})
	}
}

// The qdisc is not removed while someone adds a filter for the other hook.
func TestBothHooksAtOnce(t *testing.T) {
	for name, bpffs := range map[string]bool{"with a bpffs": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			inRoom(t, func(t *testing.T, r room) {
				one := newJudge(t, 1, 1)
				var wg sync.WaitGroup
				for d := range directions {
					a := r.way(Clsact, Egress)
					a.Direction = Direction(d)
					if !bpffs {
						a.Dir = ""
					}
					wg.Go(func() {
						for range 200 {
							err := a.Install(one.Program)
							s, statusErr := a.Status()
							if err := errors.Join(err, statusErr, a.Remove()); err != nil || !s.Attached {
								t.Errorf("%s: %+v, %v", a, s, err)
								return
							}
						}
					})
				}
				wg.Wait()
				same(t, "left", qdiscs(t, r.way(Clsact, Egress)), []string(nil))
			})
		})
	}
}

// What others made, or use, is left to them.
func TestQdiscOfOthers(t *testing.T) {
	qdisc := func(a Attachment) netlink.Qdisc { return (&clsact{a: a}).qdisc() }
	chain := netlink.NewChain(netlink.HANDLE_MIN_EGRESS, 7)
	for _, tt := range []struct {
		name          string
		before, after func(h *netlink.Handle, a Attachment, j judge) error
	}{
		{"made before",
			func(h *netlink.Handle, a Attachment, j judge) error { return h.QdiscAdd(qdisc(a)) }, nil},
		{"a filter", nil,
			func(h *netlink.Handle, a Attachment, j judge) error { return h.FilterAdd(a.filterOf(j, 5, 0)) }},
		{"a filter of its priority", nil,
			func(h *netlink.Handle, a Attachment, j judge) error { return h.FilterAdd(a.filterOf(j, priority, 0)) }},
		{"a filter at the other hook", nil,
			func(h *netlink.Handle, a Attachment, j judge) error {
				a.Direction = 1 - a.Direction
				return h.FilterAdd(a.filterOf(j, priority, handle))
			}},
		{"a chain", nil,
			func(h *netlink.Handle, a Attachment, j judge) error { return h.ChainAdd(device(a.Interface), chain) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inRoom(t, func(t *testing.T, r room) {
				a := r.way(Clsact, Egress)
				one, other := newJudge(t, 1, 1), newJudge(t, 0, 3)
				do := func(fn func(h *netlink.Handle, a Attachment, j judge) error) {
					if fn != nil {
						must(t, a.rtnl(func(h *netlink.Handle) error { return fn(h, a, other) }))
					}
				}
				do(tt.before)
				must(t, a.Install(one.Program))
				do(tt.after)
				must(t, a.Install(one.Program))
				must(t, a.Remove())
				same(t, "left", qdiscs(t, a), []string{"clsact"})
				same(t, "state", status(t, a), State{Name: "near"})
				must(t, a.rtnl(func(h *netlink.Handle) error {
					for d := range directions {
						filters, err := h.FilterList(device(a.Interface), Direction(d).parent())
						if err != nil {
							return err
						}
						for _, f := range filters {
							if strings.HasPrefix(f.(*netlink.BpfFilter).Name, "postern") {
								t.Errorf("left: %+v", f)
							}
						}
					}
					return nil
				}))
			})
		})
	}
}

// What is in the way is named, with the remedy, and left as it is.
func TestClsactOfOthersInTheWay(t *testing.T) {
	block := uint32(22)
	for _, tt := range []struct {
		name, want string
		direction  Direction
		make       func(h *netlink.Handle, a Attachment, j judge) error
	}{
		{"the qdisc ingress", "tc qdisc del dev near ingress", Egress,
			func(h *netlink.Handle, a Attachment, j judge) error { return h.QdiscAdd(ingress(a)) }},
		{"a filter in our place", "handle 0x706f7374", Egress,
			func(h *netlink.Handle, a Attachment, j judge) error {
				return errors.Join(h.QdiscAdd((&clsact{a: a}).qdisc()), h.FilterAdd(a.filterOf(j, priority, handle)))
			}},
		{"a filter of our name that does not act directly", "handle 0x706f7374", Egress,
			func(h *netlink.Handle, a Attachment, j judge) error {
				f := a.filterOf(j, priority, handle)
				f.DirectAction, f.Name = false, a.Direction.filterName()
				return errors.Join(h.QdiscAdd((&clsact{a: a}).qdisc()), h.FilterAdd(f))
			}},
		{"a filter of our priority for one protocol", "a bpf filter for protocol 0x800", Egress,
			func(h *netlink.Handle, a Attachment, j judge) error {
				f := a.filterOf(j, priority, 1)
				f.Protocol = unix.ETH_P_IP
				return errors.Join(h.QdiscAdd((&clsact{a: a}).qdisc()), h.FilterAdd(f))
			}},
		{"a filter of our priority of another type", "a u32 filter for protocol 0x3", Egress,
			func(h *netlink.Handle, a Attachment, j judge) error {
				f := &netlink.U32{FilterAttrs: a.filterOf(j, priority, 0).FilterAttrs, ClassId: netlink.MakeHandle(1, 1)}
				return errors.Join(h.QdiscAdd((&clsact{a: a}).qdisc()), h.FilterAdd(f))
			}},
		{"a block that is shared", "ingress_block", Ingress,
			func(h *netlink.Handle, a Attachment, j judge) error {
				q := (&clsact{a: a}).qdisc()
				q.IngressBlock = &block
				return h.QdiscAdd(q)
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inRoom(t, func(t *testing.T, r room) {
				a := r.way(Clsact, Egress)
				a.Direction = tt.direction
				one, other := newJudge(t, 1, 1), newJudge(t, 0, 3)
				must(t, a.rtnl(func(h *netlink.Handle) error { return tt.make(h, a, other) }))
				before := dump(t, a)
				err := a.Install(one.Program)
				if !errors.Is(err, ErrForeign) || errors.Is(err, ErrNotSupported) || !strings.Contains(fmt.Sprint(err), tt.want) {
					t.Errorf("Install: %v, want %q", err, tt.want)
				}
				same(t, "status", status(t, a), State{Name: "near"})
				must(t, a.Remove())
				same(t, "untouched", dump(t, a), before)
				must(t, a.as(Auto).Install(one.Program)) // tcx is not in its way
			})
		})
	}
}

// The qdisc ingress of others will do for ingress.
func TestIngressQdiscOfOthers(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		a := r.way(Clsact, Ingress)
		one := newJudge(t, 1, 1)
		must(t, a.rtnl(func(h *netlink.Handle) error { return h.QdiscAdd(ingress(a)) }))
		must(t, a.Install(one.Program))
		same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
		same(t, "status", status(t, a), a.inForce("far", id(t, one.Program)))
		list, err := List(a.Dir, a.NetNS)
		must(t, err)
		same(t, "list", list, []Attachment{a.listed()})
		out := a // The qdisc lists its filters for egress too.
		out.Direction = Egress
		same(t, "egress", status(t, out), State{Name: "far"})
		if err := out.Install(one.Program); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "tc qdisc del dev far ingress") {
			t.Errorf("egress: %v", err)
		}
		must(t, out.Remove())
		same(t, "ingress still", status(t, a), a.inForce("far", id(t, one.Program)))
		must(t, a.Remove())
		same(t, "left", qdiscs(t, a), []string{"ingress"})
	})
}

func ingress(a Attachment) netlink.Qdisc {
	return &netlink.Ingress{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: a.Interface, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_INGRESS}}
}

// dump is the qdiscs and filters of an interface.
func dump(t testing.TB, a Attachment) (lines []string) {
	t.Helper()
	must(t, a.rtnl(func(h *netlink.Handle) error {
		lines = qdiscs(t, a)
		for d := range directions {
			filters, err := h.FilterList(device(a.Interface), Direction(d).parent())
			if err != nil {
				return err
			}
			for _, f := range filters {
				lines = append(lines, fmt.Sprintf("%s %v %+v", f.Type(), *f.Attrs().Chain, f))
			}
		}
		return nil
	}))
	return lines
}

// A filter that the kernel refuses leaves no qdisc behind.
func TestQdiscOfFailedInstall(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		a := r.way(Clsact, Egress)
		one := newJudge(t, 1, 1)
		one.Close() // The descriptor is -1 now.
		must(t, a.rtnl(func(h *netlink.Handle) error {
			if err := (&clsact{a: a, h: h}).put(one.Program); !errors.Is(err, unix.EINVAL) {
				t.Errorf("a program that is closed: %v", err)
			}
			return nil
		}))
		same(t, "left", qdiscs(t, a), []string(nil))
	})
}

// Unlike tcx, it does not go with an interface into another namespace.
func TestClsactOfAnInterfaceMovedAway(t *testing.T) {
	inRoom(t, func(t *testing.T, r room) {
		a := r.way(Clsact, Egress)
		one := newJudge(t, 1, 1)
		must(t, r.Do(0, func() error { return add("goes", 77) }))
		a.Interface = 77
		must(t, a.Install(one.Program))
		must(t, r.Do(0, func() error { return netlink.LinkSetNsFd(device(77), int(r.NS[1])) }))
		same(t, "here", status(t, a), State{})
		a.NetNS = int(r.NS[1])
		same(t, "there", status(t, a), State{Name: "goes"})
		same(t, "there", qdiscs(t, a), []string(nil))
		must(t, a.Install(one.Program))
		same(t, "installed there", status(t, a), a.inForce("goes", id(t, one.Program)))
	})
}

func TestClsactNeedsNoBPFFS(t *testing.T) {
	for _, dir := range []string{"", "/proc/self", t.TempDir()} {
		inRoom(t, func(t *testing.T, r room) {
			a := r.way(Clsact, Egress)
			a.Dir = dir
			one := newJudge(t, 1, 1)
			must(t, a.Install(one.Program))
			same(t, "status", status(t, a), a.inForce("near", id(t, one.Program)))
			same(t, "kind 1 refused", r.passed(t, 10), arrived{2: {1: 10}})
			list, err := List(dir, a.NetNS)
			if !errors.Is(err, ErrNoBPFFS) { // tcx would be there
				t.Errorf("list: %v", err)
			}
			same(t, "list", list, []Attachment{a.listed()})
			if _, err := a.as(Auto).Status(); !errors.Is(err, ErrNoBPFFS) {
				t.Errorf("any kind: %v", err)
			}
			must(t, a.Remove())
			same(t, "removed", r.passed(t, 10), arrived{1: {10}, 2: {10}})
			same(t, "left", qdiscs(t, a), []string(nil))
		})
	}
}

func TestErrorsOfClsact(t *testing.T) {
	for _, tt := range []struct {
		err, is error
		want    string
	}{
		{unix.EPERM, fs.ErrPermission, "CAP_NET_ADMIN over the network namespace"},
		{unix.ENODEV, ErrNoInterface, "index 5"},
		{unix.ENOENT, ErrNotSupported, "CONFIG_NET_CLS_BPF"},
		{unix.EOPNOTSUPP, ErrForeign, "ingress_block"},
		{unix.ENOMEM, unix.ENOMEM, "add: "},
	} {
		err := (&clsact{a: Attachment{Interface: 5}}).explain("add", tt.err)
		if !errors.Is(err, tt.is) || !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.err, err, tt.want)
		}
		if errors.Is(err, ErrNotSupported) != (tt.is == ErrNotSupported) {
			t.Errorf("%v: %v", tt.err, err)
		}
	}
}
