package matrix

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/evasions"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/tc"
)

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is two namespaces. Frames are sent in the near one, as host would, and guarded there.
type world struct {
	*lab.Pair
	near  device
	host  evasions.Host
	roles []*role
	// superFrames need a kind of socket of their own.
	superFrames []*evasions.Case

	gate    gate.Gate
	bpffs   string
	engines map[string]*bpf.Engine
	inForce []interface{ Close() error }
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces and eBPF")
	}
	p, err := lab.New()
	must(t, err)
	t.Cleanup(p.Close)
	if err := gate.Probe(int(p.NS[0])); err != nil {
		cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	w := &world{Pair: p, near: device{p.Ifi[0].Index, p.Ifi[0].Name, [6]byte(p.Ifi[0].HardwareAddr)}, host: evasions.NewHost(), engines: map[string]*bpf.Engine{}}
	w.host.MAC = w.near.mac
	w.roles, w.superFrames = rolesOf(w.host)
	w.gate = gate.Gate{Name: "postern", Owner: "postern, by its test", NetNS: int(p.NS[0])}
	w.bpffs = filepath.Join(t.TempDir(), "bpf")
	must(t, os.Mkdir(w.bpffs, 0o755))
	must(t, unix.Mount("bpf", w.bpffs, "bpf", 0, ""))
	t.Cleanup(func() { unix.Unmount(w.bpffs, unix.MNT_DETACH) })
	t.Cleanup(func() {
		for _, e := range w.engines {
			e.Close()
		}
	})
	t.Cleanup(func() { w.unguard(t) })
	return w
}

// role is the frames that one policy judges.
type role struct {
	policy         *evasions.Policy
	forged, honest []evasions.Frame
}

// rolesOf collects the cases by policy, each frame once.
func rolesOf(h evasions.Host) (list []*role, superFrames []*evasions.Case) {
	byPolicy, seen := map[*evasions.Policy]*role{}, map[string]bool{}
	for _, c := range evasions.Cases(h) {
		r := byPolicy[c.Policy]
		if r == nil {
			r = &role{policy: c.Policy}
			byPolicy[c.Policy] = r
			list = append(list, r)
		}
		add := func(to *[]evasions.Frame, f evasions.Frame) {
			key := fmt.Sprintf("%s %x", c.Policy.Name, f.Bytes)
			if f.GSOSize == 0 && !seen[key] {
				seen[key] = true
				*to = append(*to, f)
			}
		}
		if c.Forged.GSOSize > 0 {
			superFrames = append(superFrames, &c)
		}
		add(&r.forged, c.Forged)
		add(&r.honest, c.Honest)
	}
	return list, superFrames
}

// how a policy is enforced.
type how struct {
	tc      bool // a program at the device's own hook, in place of the gate
	senders gate.Senders
	devices []device // of the near namespace; none means near itself
}

// guard puts a policy in force in the place of what was.
func (w *world) guard(t testing.TB, policy *evasions.Policy, h how) {
	t.Helper()
	w.unguard(t)
	e := w.engine(t, policy, h)
	if h.devices == nil {
		h.devices = []device{w.near}
	}
	var config gate.Config
	for _, d := range h.devices {
		must(t, e.SetInterface(d.index, d.name, d.mac[:]))
		config.Devices = append(config.Devices, gate.Device{Name: d.name, Senders: h.senders})
		if h.tc {
			a := tc.Attachment{Interface: d.index, Direction: tc.Egress, Dir: w.bpffs, NetNS: int(w.NS[0])}
			w.inForce = append(w.inForce, remover(a.Remove))
			must(t, a.Install(e.Program()))
		}
	}
	if h.tc {
		return
	}
	index, err := w.gate.Inspection()
	must(t, err)
	w.inForce = append(w.inForce, remover(w.gate.Remove))
	must(t, w.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: e.Program(), Attach: ebpf.AttachTCXEgress})
		if err == nil {
			w.inForce = append(w.inForce, l)
		}
		return err
	}))
	must(t, w.gate.Install(config))
}

type remover func() error

func (r remover) Close() error { return r() }

// unguard takes away what guard put in force.
func (w *world) unguard(t testing.TB) {
	t.Helper()
	for _, c := range w.inForce {
		must(t, c.Close())
	}
	w.inForce = nil
}

// engine compiles and loads a policy, once.
func (w *world) engine(t testing.TB, policy *evasions.Policy, h how) *bpf.Engine {
	t.Helper()
	key := fmt.Sprint(policy.Name, h.tc, h.senders)
	if w.engines[key] != nil {
		return w.engines[key]
	}
	p, _, err := firewall.Parse(policy.Name, policy.YAML)
	must(t, err)
	spec, err := bpf.Compile(firewall.Compile(p), bpf.Options{Gate: !h.tc, AllSenders: h.senders == gate.All})
	must(t, err)
	e, err := spec.Load()
	must(t, err)
	w.engines[key] = e
	for _, live := range policy.Live {
		for _, decl := range p.Sets {
			if decl.Name == live.Set {
				el, err := decl.Element(live.Parts...)
				must(t, err)
				must(t, e.UpdateSet(live.Set, func(u *bpf.SetUpdate) error { return u.Add(el) }))
			}
		}
	}
	return e
}
