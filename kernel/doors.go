package kernel

import (
	"path"
	"slices"
	"strings"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
)

// gateName is that of the nft table and of the inspection device.
const gateName = "postern"

// iface is an interface of the namespace.
type iface struct {
	index int
	name  string
	mac   []byte // 6 bytes, or nil
}

// door is an interface that a policy guards, in one direction.
type door struct {
	iface
	direction firewall.Direction
	hook      firewall.Hook // HookTC or HookGate
	all       bool          // whoever sent the frame
}

// doors are what a policy guards of the interfaces that there are. Guards that name the same
// one add up. auto is what `hook: auto` means here.
func doors(p *firewall.Policy, auto firewall.Hook, ifaces []iface) (list []door) {
	if p == nil {
		return nil
	}
	for _, i := range ifaces {
		if i.name == gateName {
			continue
		}
		for _, d := range []firewall.Direction{firewall.Egress, firewall.Ingress} {
			var at *door
			for _, g := range p.Guard {
				if g.Direction != d || !matches(g.Interfaces, i.name) {
					continue
				}
				if at == nil {
					at = &door{iface: i, direction: d, hook: firewall.HookTC}
				}
				at.all = at.all || g.AllSenders
				at.hook = max(at.hook, hookOf(g, auto))
			}
			if at != nil {
				list = append(list, *at)
			}
		}
	}
	return list
}

// hookOf is a guard's hook where auto is known.
func hookOf(g firewall.Guard, auto firewall.Hook) firewall.Hook {
	if g.Hook == firewall.HookAuto {
		return auto
	}
	return g.Hook
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return ok && err == nil
	})
}

// gateDevices are the names for the gate's chains: those that the kernel follows by itself, and
// otherwise those of the interfaces that there are. prefixes is false for a kernel
// that knows no `veth*`.
func gateDevices(p *firewall.Policy, auto firewall.Hook, ifaces []iface, prefixes bool) (list []gate.Device) {
	if p == nil {
		return nil
	}
	add := func(name string, all bool) {
		senders := gate.PacketSockets
		if all {
			senders = gate.All
		}
		if i := slices.IndexFunc(list, func(d gate.Device) bool { return d.Name == name }); i >= 0 {
			list[i].Senders = max(list[i].Senders, senders)
			return
		}
		list = append(list, gate.Device{Name: name, Senders: senders})
	}
	for _, g := range p.Guard {
		if g.Direction != firewall.Egress || hookOf(g, auto) != firewall.HookGate {
			continue
		}
		for _, pattern := range g.Interfaces {
			prefix, star := strings.CutSuffix(pattern, "*")
			switch {
			case strings.ContainsAny(prefix, `*?[\`) || star && !prefixes:
				for _, i := range ifaces {
					if matches([]string{pattern}, i.name) && i.name != gateName {
						add(i.name, g.AllSenders)
					}
				}
			default:
				add(pattern, g.AllSenders)
			}
		}
	}
	return list
}

// followed says whether the kernel by itself guards interfaces that appear under a pattern.
func followed(pattern string, hook firewall.Hook, prefixes bool) bool {
	prefix, star := strings.CutSuffix(pattern, "*")
	return hook == firewall.HookGate && !strings.ContainsAny(prefix, `*?[\`) && (prefixes || !star)
}

// variant is the program for a tc hook.
func (d door) variant() bpf.Variant {
	return bpf.Variant{AllSenders: d.all, Ingress: d.direction == firewall.Ingress}
}

// variants are the programs that a policy needs, and which of them is the gate's. each is true
// where the gate's program must go by the interface.
func variants(p *firewall.Policy, auto firewall.Hook, each bool) (list []bpf.Variant, ofGate *bpf.Variant) {
	senders := map[bool]bool{}
	for _, g := range p.Guard {
		switch {
		case g.Direction == firewall.Egress && hookOf(g, auto) == firewall.HookGate:
			senders[g.AllSenders] = true
		default:
			v := door{all: g.AllSenders, direction: g.Direction}.variant()
			if !slices.Contains(list, v) {
				list = append(list, v)
			}
		}
	}
	// An interface that two guards name may be at the gate or at tc with either's senders.
	if len(p.Guard) > 1 && slices.Contains(list, bpf.Variant{}) && !slices.Contains(list, bpf.Variant{AllSenders: true}) && senders[true] {
		list = append(list, bpf.Variant{AllSenders: true})
	}
	if len(senders) > 0 {
		mixed := len(senders) > 1 || len(list) > 0
		ofGate = &bpf.Variant{Gate: true, AllSenders: senders[true], PerInterface: each || mixed}
		list = append(list, *ofGate)
	}
	return list, ofGate
}

// sendersOf is what the program of PerInterface is told of a door.
func sendersOf(d door) bpf.Senders {
	if d.all {
		return bpf.SendersAll
	}
	return bpf.SendersPacketSockets
}
