package kernel

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/seal"
	"github.com/postern-fw/postern/kernel/tc"
)

func (s *session) gate() gate.Gate {
	return gate.Gate{Name: gateName, Owner: "postern, the egress firewall for link-layer frames", NetNS: s.NetNS}
}

func (s *session) links() string { return s.path(nameLinks) }

func (s *session) attachment(index int, d firewall.Direction) tc.Attachment {
	a := tc.Attachment{Interface: index, Direction: tc.Egress, Dir: s.links(), NetNS: s.NetNS}
	if d == firewall.Ingress {
		a.Direction = tc.Ingress
	}
	return a
}

// interfaces are those of the namespace.
func (s *session) interfaces() ([]iface, error) {
	h, err := s.rtnetlink()
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	var list []iface
	for _, l := range links {
		i := iface{index: l.Attrs().Index, name: l.Attrs().Name}
		if len(l.Attrs().HardwareAddr) == 6 {
			i.mac = l.Attrs().HardwareAddr
		}
		list = append(list, i)
	}
	return list, nil
}

func (h Host) rtnetlink() (*netlink.Handle, error) {
	ns := netns.None()
	if h.NetNS != 0 {
		ns = netns.NsHandle(h.NetNS)
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return handle, nil
}

// hooks is what converge makes of the hooks of a namespace.
type hooks struct {
	*session
	state
	ifaces     []iface
	now, then  []door // of current and of before
	inspection int    // index of the inspection device, 0 without a gate
	switches   map[[2]*ebpf.Program]*bpf.Switch
}

// converge makes the hooks what the generations say: what is new is put in force before
// what is not wanted any more is taken away, so that no frame is judged by neither.
func (s *session) converge(st state) error {
	h := &hooks{session: s, state: st, switches: map[[2]*ebpf.Program]*bpf.Switch{}}
	var err error
	if h.ifaces, err = s.interfaces(); err != nil {
		return err
	}
	policies := [2]*firewall.Policy{}
	for i, g := range []*generation{st.current, st.before} {
		if policies[i], err = g.parse(); err != nil {
			return err
		}
	}
	h.now, h.then = doorsOf(st.current, policies[0], h.ifaces), doorsOf(st.before, policies[1], h.ifaces)
	stale, err := h.oldSwitches()
	if err != nil {
		return err
	}
	defer h.closeSwitches()
	steps := []func() error{
		func() error { return h.seals(policies[0], policies[1]) },
		func() error { return h.funnel(policies) },
		func() error { return h.tell(policies) },
		h.attachGate,
		h.attachAll,
		func() error { return h.installGate(policies) },
		h.detachRest,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	for _, pin := range stale {
		err = errors.Join(err, os.Remove(pin))
	}
	return err
}

func doorsOf(g *generation, p *firewall.Policy, ifaces []iface) []door {
	if g == nil {
		return nil
	}
	return doors(p, g.Auto, ifaces)
}

// funnel makes the inspection device if a gate is wanted.
func (h *hooks) funnel(policies [2]*firewall.Policy) (err error) {
	for i, g := range []*generation{h.current, h.before} {
		if g != nil && len(gateDevices(policies[i], g.Auto, h.ifaces, true)) > 0 {
			h.inspection, err = h.session.gate().Inspection()
			return err
		}
	}
	return nil
}

// tell gives the programs what they have to know of the interfaces, before the first frame
// asks for it.
func (h *hooks) tell(policies [2]*firewall.Policy) error {
	for i, g := range []*generation{h.current, h.before} {
		if g == nil {
			continue
		}
		mine := [][]door{h.now, h.then}[i]
		if err := tellInterfaces(g.engine, mine, append(h.now, h.then...)); err != nil {
			return err
		}
		if err := g.resolveCgroups(nil); err != nil {
			return err
		}
		for _, name := range bpf.Targets(policies[i]) {
			index, via := 0, 0
			for _, x := range h.ifaces {
				if x.name == name {
					index = x.index
				}
			}
			for _, d := range mine {
				if d.index == index && d.direction == firewall.Egress && d.hook == firewall.HookGate {
					via = h.inspection
				}
			}
			if err := g.engine.SetTarget(policies[i], name, index, via); err != nil {
				return err
			}
		}
	}
	return nil
}

// tellInterfaces tells of the doors that are the policy's own, and that the others are not.
func tellInterfaces(e *bpf.Engine, mine, all []door) error {
	known, err := e.Interfaces()
	if err != nil {
		return err
	}
	told := map[int]bool{}
	for _, d := range mine {
		// An interface may be guarded in both directions; the gate is at the egress.
		if told[d.index] && d.direction == firewall.Ingress {
			continue
		}
		told[d.index] = true
		senders := sendersOf(d)
		if d.direction == firewall.Ingress {
			senders = bpf.SendersNone
		}
		if err := e.SetInterface(d.index, d.name, d.mac, senders); err != nil {
			return err
		}
	}
	for _, d := range all {
		if !told[d.index] {
			told[d.index] = true
			if err := e.SetInterface(d.index, d.name, d.mac, bpf.SendersNone); err != nil {
				return err
			}
		}
	}
	for _, index := range known {
		if !told[index] {
			if err := e.ForgetInterface(index); err != nil {
				return err
			}
		}
	}
	return nil
}

// program is what to attach where one generation or two judge: while it is pending, a switch.
func (h *hooks) program(now, then *ebpf.Program, gate bool) (*ebpf.Program, error) {
	if !h.pending {
		return now, nil
	}
	key := [2]*ebpf.Program{now, then}
	if sw := h.switches[key]; sw != nil {
		return sw.Program(), nil
	}
	sw, err := bpf.NewSwitch(now, then, h.current.Until, gate)
	if err != nil {
		return nil, err
	}
	h.switches[key] = sw
	name := fmt.Sprintf("%s%d_%d", pinSwitch, unix.Getpid(), bootTime())
	return sw.Program(), sw.Pin(h.current.dir, name)
}

const pinSwitch = "switch_"

// oldSwitches are the pins of those that were made before.
func (h *hooks) oldSwitches() (pins []string, err error) {
	if h.current == nil {
		return nil, nil
	}
	files, err := os.ReadDir(h.current.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), pinSwitch) {
			pins = append(pins, filepath.Join(h.current.dir, f.Name()))
		}
	}
	return pins, nil
}

func (h *hooks) closeSwitches() {
	for _, sw := range h.switches {
		sw.Close()
	}
}

// attachGate puts the programs at the inspection device.
func (h *hooks) attachGate() error {
	if h.inspection == 0 {
		return nil
	}
	var programs [2]*ebpf.Program
	for i, g := range []*generation{h.current, h.before} {
		if g != nil && g.Gate != nil {
			programs[i] = g.engine.ProgramOf(*g.Gate)
		}
	}
	p, err := h.program(programs[0], programs[1], true)
	if err != nil || p == nil {
		return err
	}
	return install(h.attachment(h.inspection, firewall.Egress), p)
}

// install attaches a program. A pin in our own directory that is in force elsewhere is that of an
// interface that was moved to another namespace, whose index another one has now.
func install(a tc.Attachment, p *ebpf.Program) error {
	err := a.Install(p)
	if !errors.Is(err, tc.ErrForeign) || tc.Release(a.Pin()) != nil {
		return err
	}
	return a.Install(p)
}

// tcKey is a tc hook.
type tcKey struct {
	index     int
	direction firewall.Direction
}

// atTC are the programs that a generation wants at tc hooks.
func atTC(g *generation, list []door) map[tcKey]*ebpf.Program {
	m := map[tcKey]*ebpf.Program{}
	for _, d := range list {
		if d.hook == firewall.HookTC {
			m[tcKey{d.index, d.direction}] = g.engine.ProgramOf(d.variant())
		}
	}
	return m
}

// attachAll puts the programs at the interfaces' own hooks.
func (h *hooks) attachAll() error {
	now, then := atTC(h.current, h.now), atTC(h.before, h.then)
	wanted := map[tcKey]bool{}
	for k := range now {
		wanted[k] = true
	}
	for k := range then {
		wanted[k] = true
	}
	for k := range wanted {
		p, err := h.program(now[k], then[k], false)
		if err == nil {
			err = install(h.attachment(k.index, k.direction), p)
		}
		if err != nil && !errors.Is(err, tc.ErrNoInterface) { // gone meanwhile
			return err
		}
	}
	return nil
}

// gateDevices are the chains of both generations.
func (h *hooks) gateDevices(policies [2]*firewall.Policy, prefixes bool) (list []gate.Device) {
	for i, g := range []*generation{h.current, h.before} {
		if g == nil {
			continue
		}
		for _, d := range gateDevices(policies[i], g.Auto, h.ifaces, prefixes) {
			at := -1
			for j := range list {
				if list[j].Name == d.Name {
					at = j
				}
			}
			if at < 0 {
				list = append(list, d)
			} else {
				list[at].Senders = max(list[at].Senders, d.Senders)
			}
		}
	}
	return list
}

// gatePriority puts the gate's chains behind everybody else's: netfilter does not see a frame again
// that was led to the inspection device and let go, and other people's filters are to
// see all that they saw before.
const gatePriority = math.MaxInt32

// installGate leads frames to the inspection device, or no longer.
func (h *hooks) installGate(policies [2]*firewall.Policy) error {
	g := h.session.gate()
	if h.inspection == 0 {
		return g.Remove()
	}
	err := g.Install(gate.Config{Devices: h.gateDevices(policies, true), Priority: gatePriority})
	if errors.Is(err, gate.ErrNotSupported) {
		// Perhaps the kernel knows no prefixes.
		err = g.Install(gate.Config{Devices: h.gateDevices(policies, false), Priority: gatePriority})
	}
	return err
}

// detachRest takes away what neither generation wants.
func (h *hooks) detachRest() error {
	list, err := tc.List(h.links(), h.NetNS)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, k := range []map[tcKey]*ebpf.Program{atTC(h.current, h.now), atTC(h.before, h.then)} {
		for k := range k {
			wanted[h.attachment(k.index, k.direction).Pin()] = true
		}
	}
	if h.inspection != 0 {
		wanted[h.attachment(h.inspection, firewall.Egress).Pin()] = true
	}
	for _, a := range list {
		if wanted[a.Pin()] {
			continue
		}
		e := a.Remove()
		if errors.Is(e, tc.ErrForeign) { // moved to another namespace
			e = tc.Release(a.Pin())
		}
		err = errors.Join(err, e)
	}
	return err
}

// seals seals the cgroups of the policy. A new one waits for the policy to be confirmed, since the
// kernel would not take it away by itself; one that is not wanted any more stays until
// then.
func (h *hooks) seals(now, then *firewall.Policy) error {
	wanted := map[string]bool{}
	for _, p := range []*firewall.Policy{now, then} {
		if p == nil {
			continue
		}
		for _, cgroup := range p.Seal {
			sl, err := h.seal(cgroup)
			if err != nil {
				return err
			}
			for _, pin := range sl.Pins() {
				wanted[filepath.Base(pin)] = true
			}
			if h.pending && p == now {
				continue
			}
			if err := sl.Install(); err != nil {
				return err
			}
		}
	}
	files, err := os.ReadDir(h.path(nameSeals))
	if err != nil {
		return nil // there are none
	}
	for _, f := range files {
		if !wanted[f.Name()] {
			err = errors.Join(err, seal.Release(filepath.Join(h.path(nameSeals), f.Name())))
		}
	}
	return err
}
