package hostile

import (
	"slices"
	"strings"
	"testing"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel"
	"github.com/postern-fw/postern/kernel/gate"
)

// guarded is a policy in force at one end of a pair.
type guarded struct{ kernel.Host }

// guard puts a policy in force at one end, in the kernel, and all of it.
func guard(t testing.TB, p *lab.Pair, end int, policy string) *guarded {
	t.Helper()
	if err := gate.Probe(int(p.NS[end])); err != nil {
		labtest.Cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	root, unmount, err := lab.BPFFS()
	must(t, err)
	t.Cleanup(unmount)
	g := &guarded{kernel.Host{Root: root, NetNS: int(p.NS[end])}}
	status, err := g.Apply(kernel.Source{Name: "policy.yaml", Text: []byte(policy)}, kernel.ApplyOptions{})
	must(t, err)
	// Some kernels cannot seal what 32-bit system calls do, and say so.
	warnings := slices.DeleteFunc(slices.Clone(status.Warnings), func(s string) bool { return strings.HasPrefix(s, "32-bit system calls") })
	if len(warnings) > 0 || len(status.Interfaces) == 0 {
		t.Fatalf("%d interfaces are guarded, with these warnings: %q", len(status.Interfaces), status.Warnings)
	}
	return g
}

// decided is how many frames a rule has decided so far, or the "default", or that
// they were "malformed".
func (g *guarded) decided(t testing.TB, rule string) uint64 {
	t.Helper()
	rules, err := g.Rules()
	must(t, err)
	for _, r := range rules {
		if r.Name == rule {
			return r.Frames
		}
	}
	t.Fatalf("the policy has no rule %s", rule)
	return 0
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
