package rows

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/gate"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a network namespace that can be guarded, with the device near, and the one at
// the other end of its wire, with far.
type world struct {
	*lab.Pair
	kernel.Host
	t testing.TB
}

func newWorld(t testing.TB) *world {
	t.Helper()
	p := labtest.NewPair(t, "", "")
	if err := gate.Probe(int(p.NS[0])); err != nil {
		labtest.Cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	// The kernel's own neighbour discovery would be counted now and then.
	must(t, p.Do(0, func() error {
		for _, which := range []string{"all", "default"} {
			if err := sysctl("net.ipv6.conf."+which+".disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}))
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	return &world{p, kernel.Host{Root: root, NetNS: int(p.NS[0])}, t}
}

// sysctl sets one of the calling thread's network namespace.
func sysctl(name, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	return os.WriteFile(path, []byte(value), 0)
}

// join gives the guarded namespace one more device, and that a peer in a namespace of its own.
func (w *world) join(name, peer string) *lab.Pair {
	w.t.Helper()
	p, err := w.Join(0, name, peer)
	must(w.t, err)
	w.t.Cleanup(p.Close)
	return p
}

// guard puts a policy in force, in place of what was there.
func (w *world) guard(policy string) {
	w.t.Helper()
	s, err := w.Apply(kernel.Source{Name: "policy.yaml", Text: []byte(policy)}, kernel.ApplyOptions{})
	must(w.t, err)
	if len(s.Interfaces) == 0 {
		w.t.Fatal("the policy guards nothing")
	}
	for _, i := range s.Interfaces {
		if !i.Guarded {
			w.t.Fatalf("%s, %s: %s", i.Name, i.Direction, i.Fault)
		}
	}
}

// matched is how many frames each rule matched so far.
func (w *world) matched() map[string]int {
	w.t.Helper()
	list, err := w.Rules()
	must(w.t, err)
	counts := map[string]int{}
	for _, r := range list {
		counts[r.Name] = int(r.Frames)
	}
	return counts
}

// next waits for the next event.
func (w *world) next() (event kernel.Event) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), labtest.Patience)
	defer cancel()
	must(w.t, w.Monitor(ctx, func(e *kernel.Event) error {
		event = *e
		cancel()
		return nil
	}))
	if event.Time.IsZero() {
		w.t.Fatalf("no event in %v", labtest.Patience)
	}
	return event
}

// receive copies what arrives at the second end of a pair.
func receive(t testing.TB, p *lab.Pair) *lab.Receiver {
	t.Helper()
	r, err := p.Receive(1)
	must(t, err)
	t.Cleanup(func() { _ = r.Close() }) // at the end of a test that has had what it wanted
	return r
}

// arrived is how often each frame has arrived, by its sender protocol address's last byte
// for ARP.
func arrived(t testing.TB, r *lab.Receiver) map[byte]int {
	t.Helper()
	frames, counts := map[string]int{}, map[byte]int{}
	must(t, r.Drain(frames))
	for f, n := range frames {
		if x, ok := announced([]byte(f)); ok {
			counts[x] += n
		}
	}
	return counts
}

// announce sends announcements of the addresses 192.0.2.x by the device at end i.
func announce(t testing.TB, p *lab.Pair, i int, xs ...byte) {
	t.Helper()
	for _, x := range xs {
		ways[0].by(t, p, i, announcement(p.Ifi[i].HardwareAddr, x))
	}
}

// example is a policy that the project hands out, as it is.
func example(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../examples/" + name)
	must(t, err)
	return string(b)
}
