package policy

import (
	"errors"
	"fmt"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// Check says what is wrong with a policy before it is put anywhere: a firewall.Diagnostics where its text is
// wrong, else which of its own tests fails. warnings come with a sound one.
func Check(name string, text []byte) (p *firewall.Policy, warnings firewall.Diagnostics, err error) {
	p, warnings, err = firewall.Parse(name, text)
	if err != nil {
		return nil, nil, err
	}
	if len(p.Guard) == 0 {
		return nil, warnings, fmt.Errorf("%s: it guards no interface: write `guard: [{interfaces: [eth0]}]`", name)
	}
	var errs []error
	for i := range p.Tests {
		if err := judge(p, &p.Tests[i]); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: its test %q fails: %w", name, p.Tests[i].Line, p.Tests[i].Name, err))
		}
	}
	return p, warnings, errors.Join(errs...)
}

// judge runs a test, which meets the policy fresh and a clock that stands still.
func judge(p *firewall.Policy, t *firewall.Test) error {
	fw, err := firewall.New(p)
	if err != nil {
		return err
	}
	var packet filter.Packet
	packet.Decode(t.Frame, &filter.Meta{Time: 1, Iface: t.Iface, IfaceMAC: t.IfaceMAC, HasIfaceMAC: t.HasIfaceMAC, Mark: t.Mark, Ingress: t.Ingress})
	d := fw.Classify(&packet)
	if d.Verdict != t.Expect || t.Rule != "" && t.Rule != d.RuleName() || t.ExpectIface != "" && (d.Rule == nil || d.Rule.Iface != t.ExpectIface) {
		return fmt.Errorf("got %v by %s, want %v %s", d.Verdict, d.RuleName(), t.Expect, t.Rule)
	}
	return nil
}
