package hostile

import (
	"path"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
)

// guarded is a policy in force at one end of a pair.
type guarded struct{ engines []*bpf.Engine }

// guard puts a policy in force at one end, as its guard section says.
func guard(t testing.TB, p *lab.Pair, end int, policy string) *guarded {
	t.Helper()
	if err := gate.Probe(int(p.NS[end])); err != nil {
		labtest.Cannot(t, "needs a kernel with netfilter's egress hook: "+err.Error())
	}
	parsed, _, err := firewall.Parse("policy.yaml", []byte(policy))
	must(t, err)
	g := &guarded{}
	door := gate.Gate{Name: "postern", Owner: "postern, by its test", NetNS: int(p.NS[end])}
	var devices []gate.Device
	for _, section := range parsed.Guard {
		if !names(section.Interfaces, p.Ifi[end].Name) {
			continue
		}
		ingress := section.Direction == firewall.Ingress
		spec, err := bpf.Compile(firewall.Compile(parsed), bpf.Options{Gate: !ingress, AllSenders: ingress || section.AllSenders})
		must(t, err)
		engine, err := spec.Load()
		must(t, err)
		t.Cleanup(func() { engine.Close() })
		must(t, engine.SetInterface(p.Ifi[end].Index, p.Ifi[end].Name, p.Ifi[end].HardwareAddr))
		g.engines = append(g.engines, engine)
		hook := link.TCXOptions{Interface: p.Ifi[end].Index, Program: engine.Program(), Attach: ebpf.AttachTCXIngress}
		if !ingress {
			hook.Attach = ebpf.AttachTCXEgress
			hook.Interface, err = door.Inspection()
			must(t, err)
			device := gate.Device{Name: p.Ifi[end].Name}
			if section.AllSenders {
				device.Senders = gate.All
			}
			devices = append(devices, device)
		}
		must(t, p.Do(end, func() error {
			l, err := link.AttachTCX(hook)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}))
	}
	if len(g.engines) == 0 {
		t.Fatal("the policy guards no interface of this end")
	}
	must(t, door.Install(gate.Config{Devices: devices}))
	return g
}

// names tells whether one of the patterns means name.
func names(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}

// decided is how many frames a rule has decided so far, or the "default", or that
// they were "malformed".
func (g *guarded) decided(t testing.TB, rule string) (frames uint64) {
	t.Helper()
	for _, engine := range g.engines {
		counters, err := engine.Counters()
		must(t, err)
		others := len(counters) - 2 // the default's and the malformed frames'
		for i, c := range counters {
			if i < others && c.Rule.Name == rule || i == others && rule == "default" || i == others+1 && rule == "malformed" {
				frames += c.Frames
			}
		}
	}
	return frames
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
