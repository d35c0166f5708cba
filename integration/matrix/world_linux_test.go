package matrix

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/evasions"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/gate"
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

	kernel kernel.Host
	// tagsByTC is true where a tcx program stands in for a VLAN device.
	tagsByTC bool
}

func newWorld(t testing.TB) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces and eBPF")
	}
	if err := gate.Probe(0); err != nil {
		cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	p, err := lab.New()
	must(t, err)
	t.Cleanup(p.Close)
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	w := &world{Pair: p, kernel: kernel.Host{Root: root, NetNS: int(p.NS[0])}}
	w.near = device{p.Ifi[0].Index, p.Ifi[0].Name, [6]byte(p.Ifi[0].HardwareAddr)}
	w.sendAs(w.near.mac)
	return w
}

// sendAs makes the frames those of a host with that address.
func (w *world) sendAs(mac [6]byte) {
	w.host = evasions.NewHost()
	w.host.MAC = mac
	w.roles, w.superFrames = rolesOf(w.host)
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
	// By type, or a socket that is bound to each in turn would be so more often.
	byType := func(a, b evasions.Frame) int { return bytes.Compare(a.Bytes[12:14], b.Bytes[12:14]) }
	for _, r := range list {
		slices.SortStableFunc(r.forged, byType)
		slices.SortStableFunc(r.honest, byType)
	}
	return list, superFrames
}

// how a policy is enforced; the zero value is at near, for packet sockets, by the gate,
// which HookAuto is here.
type how struct {
	hook    firewall.Hook
	all     bool // `senders: all`
	devices []string
}

// guard puts a policy in force in the place of what was.
func (w *world) guard(t testing.TB, policy *evasions.Policy, h how) {
	t.Helper()
	if h.hook == firewall.HookAuto {
		h.hook = firewall.HookGate
	}
	if h.devices == nil {
		h.devices = []string{w.near.name}
	}
	senders := "packet-sockets"
	if h.all {
		senders = "all"
	}
	const everywhere = `{interfaces: ["*"], direction: egress}`
	here := fmt.Sprintf("{interfaces: [%s], direction: egress, senders: %s, hook: %s}", strings.Join(h.devices, ", "), senders, h.hook)
	if !strings.Contains(string(policy.YAML), everywhere) {
		t.Fatalf("policy %s does not guard %s", policy.Name, everywhere)
	}
	text := strings.Replace(string(policy.YAML), everywhere, here, 1)
	_, err := w.kernel.Apply(kernel.Source{Name: policy.Name + ".yaml", Text: []byte(text)}, kernel.ApplyOptions{})
	must(t, err)
	for _, live := range policy.Live {
		must(t, w.kernel.AddToSet(live.Set, 0, live.Parts))
	}
}

// unguard takes away what guard put in force.
func (w *world) unguard(t testing.TB) {
	t.Helper()
	must(t, w.kernel.Flush())
}
