package kernel

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/postern-fw/postern/integration/lab"
)

// guarded are the names of the interfaces that the status calls so.
func (w *world) guarded() (names []string) {
	w.t.Helper()
	s, err := w.Status()
	must(w.t, err)
	for _, i := range s.Interfaces {
		if i.Guarded {
			names = append(names, i.Name)
		} else {
			w.t.Logf("%s: %s", i.Name, i.Fault)
		}
	}
	slices.Sort(names)
	return names
}

// eventually waits for what Follow does in its own time.
func (w *world) eventually(when string, want ...string) {
	w.t.Helper()
	var got []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if got = w.guarded(); slices.Equal(got, want) {
			return
		}
	}
	w.t.Errorf("%s: guarded %v, want %v", when, got, want)
}

func (w *world) link(fn func(netlink.Link) error) {
	w.t.Helper()
	must(w.t, w.Do(0, func() error {
		l, err := netlink.LinkByName("near")
		if err != nil {
			l, err = netlink.LinkByName("nearby")
		}
		if err != nil {
			return err
		}
		return fn(l)
	}))
}

// TestFollow: interfaces that come, go, are renamed and get another address.
func TestFollow(t *testing.T) {
	for _, hook := range []string{"tc", "gate"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			w.apply("policy: p\nhook: " + hook + "\nguard: [{interfaces: ['[na]*ear*', 'as?de']}]\n" +
				"rules: [{name: own, match: eth.src == iface.mac, verdict: accept}]\n")
			wg.Go(func() {
				if err := w.Follow(ctx, slog.New(slog.NewTextHandler(testWriter{t}, nil))); err != nil {
					t.Error(err)
				}
			})
			w.eventually("at first", "near")
			w.second()
			w.eventually("another came", "aside", "near")
			w.expect("its own address", false, 1, 2, 3, 4, 5, 6)
			w.link(func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, []byte{2, 0, 0, 0, 0, 0x55}) })
			// The frames of the test carry the old address.
			for deadline := time.Now().Add(5 * time.Second); len(w.announce(false, 1)) > 0; {
				if time.Now().After(deadline) {
					t.Fatal("the new address is not known to the program")
				}
			}
			w.link(func(l netlink.Link) error { return netlink.LinkSetName(l, "other") })
			w.eventually("renamed away", "aside")
			must(t, w.Do(0, func() error {
				l, err := netlink.LinkByName("other")
				if err != nil {
					return err
				}
				return netlink.LinkSetName(l, "nearby")
			}))
			w.eventually("renamed back", "aside", "nearby")
			w.link(netlink.LinkDel)
			w.eventually("deleted", "aside")
		})
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// TestFollowedByKernel: the gate guards a new interface without anybody's help, from its first frame.
func TestFollowedByKernel(t *testing.T) {
	w := newWorld(t)
	s := w.apply("policy: p\nguard: [{interfaces: [near, 'as*', later]}]\nrules: [{name: r, match: arp.src.proto_ipv4 == 192.0.2.1, verdict: accept}]\n")
	if len(s.Warnings) != 2 || !strings.Contains(s.Warnings[0], "the kernel guards it from its first frame") {
		t.Errorf("%q", s.Warnings)
	}
	w.second()
	if got := w.guarded(); !slices.Equal(got, []string{"aside", "near"}) {
		t.Errorf("guarded: %v", got)
	}
}

// TestCollect: what a namespace leaves behind that is gone is taken away by the next one.
func TestCollect(t *testing.T) {
	w := newWorld(t)
	p, err := lab.New()
	must(t, err)
	gone := Host{w.Root, int(p.NS[0])}
	_, err = gone.Apply(Source{"test.yaml", []byte(strings.ReplaceAll(vips, "HOOK", "gate"))}, ApplyOptions{})
	must(t, err)
	dir, err := gone.directory()
	must(t, err)
	w.apply(strings.ReplaceAll(vips, "HOOK", "tc"))
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("what is in force elsewhere was taken away: %v", err)
	}
	p.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		w.apply(strings.ReplaceAll(vips, "HOOK", "tc"))
		if _, err := os.Stat(dir); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the pins of a namespace that is gone stay")
		}
	}
	if left, _ := filepath.Glob(filepath.Join(w.Root, "net-*")); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestAtOnce: several processes apply, change sets and flush at once; in the end one policy is in force, whole.
func TestAtOnce(t *testing.T) {
	w := newWorld(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for k := range 10 {
				hook := []string{"gate", "tc"}[(worker+k)%2]
				policy := strings.ReplaceAll(strings.ReplaceAll(vips, "HOOK", hook), "policy: vips", fmt.Sprintf("policy: p%d-%d", worker, k))
				if _, err := w.Apply(Source{"test.yaml", []byte(policy)}, ApplyOptions{}); err != nil {
					t.Errorf("apply: %v", err)
				}
				if err := w.AddToSet("vips", 0, []string{"192.0.2.2"}); err != nil {
					t.Errorf("set add: %v", err)
				}
			}
		})
	}
	wg.Wait()
	s, err := w.Status()
	must(t, err)
	if len(s.Interfaces) != 1 || !s.Interfaces[0].Guarded || s.Generation != 40 {
		t.Errorf("%+v", s)
	}
	w.expect("in the end", false, 1, 2)
	must(t, w.Flush())
	dir, err := w.directory()
	must(t, err)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after flush: %v", err)
	}
}

// TestMoved: an interface that goes to another namespace leaves the guard behind, which the policy's words
// do not reach there.
func TestMoved(t *testing.T) {
	for _, hook := range []string{"tc", "gate"} {
		t.Run(hook, func(t *testing.T) {
			w := newWorld(t)
			w.second()
			policy := "policy: p\nhook: " + hook + "\nguard: [{interfaces: [near, aside]}]\n"
			w.apply(policy)
			must(t, w.Do(0, func() error {
				l, err := netlink.LinkByName("aside")
				if err != nil {
					return err
				}
				return netlink.LinkSetNsFd(l, int(w.NS[1]))
			}))
			w.apply(policy)
			if got := w.guarded(); !slices.Equal(got, []string{"near"}) {
				t.Errorf("guarded: %v", got)
			}
			must(t, w.Do(1, func() error {
				l, err := netlink.LinkByName("aside")
				if err != nil {
					return err
				}
				r, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: ebpf.AttachTCXEgress})
				if err == nil && len(r.Programs) > 0 {
					t.Errorf("%d programs are still attached", len(r.Programs))
				}
				return err
			}))
			must(t, w.Flush())
		})
	}
}
