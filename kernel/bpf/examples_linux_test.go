package bpf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// TestExamples: the example policies' own tests come out the same in the kernel.
func TestExamples(t *testing.T) {
	pin(t)
	files, _ := filepath.Glob("../../examples/*.yaml")
	if len(files) == 0 {
		t.Fatal("no examples")
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out, in := both(t, string(src), Options{}), both(t, string(src), Options{Ingress: true})
		for _, p := range []*pair{out, in} {
			for _, to := range Targets(p.fw.Policy()) {
				p.there[to] = true
				if err := p.engine.SetTarget(p.fw.Policy(), to, testIface, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range out.fw.Policy().Tests {
			p := out
			if c.Ingress {
				p = in
			}
			p.iface = filter.Meta{Sender: out.iface.Sender, Iface: c.Iface, IfaceMAC: c.IfaceMAC, HasIfaceMAC: c.HasIfaceMAC, Mark: c.Mark, Ingress: c.Ingress}
			if c.Ingress {
				p.iface.Sender = nil
			}
			if c.Iface == "" && c.HasIfaceMAC {
				p.iface.Iface = "lo"
			}
			if p.engine.maps[mapIfaces] != nil {
				var mac []byte
				if c.HasIfaceMAC {
					mac = c.IfaceMAC[:]
				}
				if err := p.engine.SetInterface(testIface, p.iface.Iface, mac, 0); err != nil {
					t.Fatal(err)
				}
			}
			p.agree(name+": "+c.Name, c.Frame, 0)
			if got := p.decision(); got.verdict != uint32(c.Expect) {
				t.Errorf("%s: %s: %v", name, c.Name, got)
			}
		}
		t.Logf("%s: %d frames", name, out.compared+in.compared)
	}
}
