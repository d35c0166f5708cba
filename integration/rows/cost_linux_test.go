package rows

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
)

// nearGuarded is a policy for near that lets everything pass.
func nearGuarded(hook string) string {
	return "policy: near\nguard: [{interfaces: [near], senders: all}]\nhook: " + hook + "\ndefault: accept\n"
}

// TestOtherDevice: a guard on one device has no hook on another, and none of its programs runs for
// what is sent there.
func TestOtherDevice(t *testing.T) {
	for _, hook := range []string{"gate", "tc"} {
		t.Run(hook, func(t *testing.T) {
			stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
			must(t, err)
			defer stats.Close()
			w := newWorld(t)
			other := w.join("other", "other")
			w.guard(nearGuarded(hook))
			if got := w.programs(other.Ifi[0].Index); len(got) > 0 || w.chained("other") {
				t.Errorf("the other device has the programs %v, a chain: %t", got, w.chained("other"))
			}
			at := w.Ifi[0].Index
			if hook == "gate" {
				if !w.chained("near") {
					t.Error("no chain of netfilter is at near")
				}
				at = w.index("postern")
			}
			guards := w.programs(at)
			if len(guards) != 1 {
				t.Fatalf("the programs %v judge, want one", guards)
			}
			r := receive(t, other)
			before := runs(t, guards[0])
			announce(t, other, 0, 1, 2, 3)
			if got := arrived(t, r); len(got) != 3 {
				t.Fatalf("%v arrive", got)
			}
			if n := runs(t, guards[0]) - before; n != 0 {
				t.Errorf("the program ran %d times for what was sent by the other device", n)
			}
			announce(t, w.Pair, 0, 1, 2, 3)
			if n := runs(t, guards[0]) - before; n < 3 {
				t.Errorf("the program ran %d times for 3 frames on its own device", n)
			}
		})
	}
}

// chained says whether a chain of netfilter is at a device.
func (w *world) chained(device string) bool {
	w.t.Helper()
	for line := range strings.Lines(string(w.nft("list", "ruleset"))) {
		if strings.Contains(line, " hook ") && strings.Contains(line, " device") && strings.Contains(line, device) {
			return true
		}
	}
	return false
}

// index is that of a device of the guarded namespace.
func (w *world) index(name string) (index int) {
	w.t.Helper()
	must(w.t, w.Do(0, func() error {
		ifi, err := net.InterfaceByName(name)
		if err == nil {
			index = ifi.Index
		}
		return err
	}))
	return index
}

// programs is what is attached to both tc hooks of a device.
func (w *world) programs(ifindex int) (list []ebpf.ProgramID) {
	w.t.Helper()
	must(w.t, w.Do(0, func() error {
		for _, hook := range []ebpf.AttachType{ebpf.AttachTCXEgress, ebpf.AttachTCXIngress} {
			found, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: hook})
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return err
			}
			for _, p := range found.Programs {
				list = append(list, p.ID)
			}
		}
		return nil
	}))
	return list
}

// runs is how often a program ran.
func runs(t testing.TB, id ebpf.ProgramID) int {
	t.Helper()
	p, err := ebpf.NewProgramFromID(id)
	must(t, err)
	defer p.Close()
	s, err := p.Stats()
	must(t, err)
	return int(s.RunCount)
}

// BenchmarkOtherDevice is what a frame costs that leaves by a device without a guard, into a
// device that swallows it; and beside it, what it costs on the guarded one.
func BenchmarkOtherDevice(b *testing.B) {
	for _, c := range []struct{ name, hook, by string }{
		{"no guard", "", "other"},
		{"a gate on another device", "gate", "other"},
		{"tc on another device", "tc", "other"},
		{"a gate", "gate", "guarded"},
		{"tc", "tc", "guarded"},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b)
			devices := map[string]*net.Interface{}
			for _, name := range []string{"guarded", "other"} {
				ifi, err := w.Sink(0, name)
				must(b, err)
				devices[name] = ifi
			}
			if c.hook != "" {
				w.guard(strings.ReplaceAll(nearGuarded(c.hook), "near", "guarded"))
			}
			f := announcement(devices[c.by].HardwareAddr, 1)
			must(b, w.Do(0, func() error {
				conn, err := afpacket.Listen(devices[c.by], afpacket.Raw, 0, nil)
				if err != nil {
					return err
				}
				defer conn.Close()
				for b.Loop() {
					if _, err := conn.WriteTo(f, &packet.Addr{HardwareAddr: f[:6]}); err != nil {
						return err
					}
				}
				return nil
			}))
		})
	}
}
