package kernel

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/gate"
)

// Status reports what is in force. That there is nothing is no error.
func (h Host) Status() (*Status, error) {
	var status *Status
	err := h.use(func(s *session, st state) (err error) {
		status, err = s.status(st)
		return err
	})
	if errors.Is(err, ErrNothing) {
		return &Status{Interfaces: []Interface{}}, nil
	}
	return status, err
}

// use runs fn with what is in force. It fails with ErrNothing if there is nothing.
func (h Host) use(fn func(*session, state) error) error {
	s, err := h.enter(false)
	if err != nil {
		return err
	}
	defer s.leave()
	st, err := s.resolve()
	if err != nil {
		return err
	}
	defer st.close()
	if st.current == nil {
		return ErrNothing
	}
	return fn(s, st)
}

func (s *session) status(st state) (*Status, error) {
	g := st.current
	policy, err := g.parse()
	if err != nil {
		return nil, err
	}
	out := &Status{Enforcing: true, Policy: g.Policy, File: g.File, Generation: g.Generation, Since: g.Applied, Interfaces: []Interface{}}
	if st.pending {
		out.Pending = &Pending{Deadline: time.Now().Add(time.Duration(g.Until - bootTime())).Round(time.Millisecond)}
		if st.before != nil {
			out.Pending.Before = st.before.Policy
		}
	}
	if out.LostEvents, err = g.engine.Lost(); err != nil {
		return nil, err
	}
	out.Seals = s.sealStatus(policy)
	for _, x := range out.Seals {
		if x.Open32 != "" {
			out.Warnings = append(out.Warnings, fmt.Sprintf("32-bit system calls pass the seal of %s: %s", x.Cgroup, x.Open32))
		}
	}
	return out, s.interfaceStatus(st, policy, out)
}

func (s *session) sealStatus(p *firewall.Policy) (list []Seal) {
	for _, cgroup := range p.Seal {
		out := Seal{Cgroup: cgroup}
		sl, err := s.seal(cgroup)
		if err == nil {
			state, e := sl.Status()
			out.Sealed, out.Open32, err = state.Sealed, open32(state), e
		}
		if err != nil {
			out.Fault = err.Error()
		} else if !out.Sealed {
			out.Fault = "not sealed"
		}
		list = append(list, out)
	}
	return list
}

// interfaceStatus looks at every hook, whatever should be there.
func (s *session) interfaceStatus(st state, p *firewall.Policy, out *Status) error {
	ifaces, err := s.interfaces()
	if err != nil {
		return err
	}
	gateState, gateErr := s.gate().Status()
	atGate := gateState.Guarded()
	if gateErr == nil && gateState.Inspection != 0 {
		if a, err := s.attachment(gateState.Inspection, firewall.Egress).Status(); err != nil || !a.Attached {
			gateErr = errors.Join(errors.New("no program is attached to the inspection device: what comes there is dropped"), err)
		}
	}
	var machine Seal // the seal of all cgroups, if there is one
	for _, x := range out.Seals {
		if sl, err := s.seal(x.Cgroup); err == nil && x.Sealed && wholeMachine(sl.Cgroup) {
			machine = x
		}
	}
	for _, d := range doors(p, st.current.Auto, ifaces) {
		i := Interface{Name: d.name, Index: d.index, Direction: d.direction.String(), Senders: "packet-sockets", Hook: "gate"}
		if d.all {
			i.Senders = "all"
		}
		if d.hook == firewall.HookGate {
			i.gateFault(d, gateErr, atGate)
		} else {
			s.tcFault(st, d, &i)
		}
		i.Guarded = i.Fault == ""
		i.Paths = paths(d, i.Guarded, machine, st.current.Sealed)
		out.Interfaces = append(out.Interfaces, i)
	}
	s.missing(p, st.current, ifaces, gateState, out)
	return nil
}

func (i *Interface) gateFault(d door, err error, guarded map[int]gate.Senders) {
	senders, there := guarded[d.index]
	switch {
	case err != nil:
		i.Fault = err.Error()
	case !there:
		i.Fault = "no chain of the gate leads its frames to the inspection device"
	case d.all && senders != gate.All:
		i.Fault = "the gate's chain lets frames with a route pass"
	}
}

func (s *session) tcFault(st state, d door, i *Interface) {
	a, err := s.attachment(d.index, d.direction).Status()
	i.Hook = a.Kind.String()
	switch {
	case err != nil:
		i.Fault = err.Error()
	case !a.Attached:
		i.Fault = "no program is attached"
	case !st.pending && !isProgram(st.current.engine.ProgramOf(d.variant()), a.Program):
		i.Fault = fmt.Sprintf("another program is attached (id %d)", a.Program)
	case len(a.Before) > 0:
		// It may let everything pass, or nothing.
		i.Fault = fmt.Sprintf("programs of others come first (ids %v)", a.Before)
	}
}

func isProgram(p *ebpf.Program, id ebpf.ProgramID) bool {
	if p == nil {
		return false
	}
	info, err := p.Info()
	if err != nil {
		return false
	}
	mine, ok := info.ID()
	return ok && mine == id
}

// missing warns of what the policy names and is not there, or will not be guarded by itself.
func (s *session) missing(p *firewall.Policy, g *generation, ifaces []iface, gs gate.State, out *Status) {
	prefixes := true
	for _, d := range gateDevices(p, g.Auto, ifaces, true) {
		found := false
		for _, have := range gs.Devices {
			found = found || have.Name == d.Name
		}
		prefixes = prefixes && (found || !strings.HasSuffix(d.Name, "*"))
	}
	for _, guard := range p.Guard {
		for _, pattern := range guard.Interfaces {
			there := false
			for _, i := range ifaces {
				there = there || i.name != gateName && matches([]string{pattern}, i.name)
			}
			follow := followed(pattern, hookOf(guard, g.Auto), prefixes)
			switch {
			case !there && !follow:
				out.Warnings = append(out.Warnings, fmt.Sprintf("no interface is named %s (yet); when one is, `postern run` guards it", pattern))
			case !there:
				out.Warnings = append(out.Warnings, fmt.Sprintf("no interface is named %s (yet); the kernel guards it from its first frame", pattern))
			case strings.ContainsAny(pattern, `*?[\`) && !follow:
				out.Warnings = append(out.Warnings, fmt.Sprintf("interfaces that appear later as %s are guarded only while `postern run` runs", pattern))
			}
		}
	}
}

// paths are the ways of sending by a guarded interface.
func paths(d door, guarded bool, machine Seal, always bool) []Path {
	if d.direction == firewall.Ingress {
		return []Path{{Name: "frames that come in", Closed: guarded, Why: "tc ingress sees all of them, before netfilter"}}
	}
	plain := Path{Name: "packet sockets", Closed: guarded, Why: "every egress hook sees them, TX_RING and SOCK_PACKET too"}
	bypass := Path{Name: "packet sockets with PACKET_QDISC_BYPASS"}
	switch {
	case d.hook == firewall.HookGate:
		bypass.Closed, bypass.Why = guarded, "the gate (netfilter's egress hook) sees them"
	case machine.Open32 != "":
		bypass.Why = "tc does not see them, and 32-bit system calls pass the seal: take `hook: gate`"
	case machine.Sealed && always:
		bypass.Closed, bypass.Why = true, "every packet socket was made below the seal, which forbids it"
	case machine.Sealed:
		bypass.Why = "tc does not see them; the seal forbids it to sockets made since, not to those from before: take `hook: gate`"
	default:
		bypass.Why = "tc does not see them: take `hook: gate`, or seal their cgroups"
	}
	xdp := Path{Name: "AF_XDP sockets", Closed: machine.Sealed && machine.Open32 == "", Why: "no egress hook sees them; the seal of all cgroups forbids them"}
	switch {
	case machine.Open32 != "":
		xdp.Why = "no egress hook sees them; the seal of all cgroups forbids them, but 32-bit system calls pass it"
	case !machine.Sealed:
		xdp.Why = "no egress hook sees them: `seal: /` forbids them (to sockets that are made since)"
	}
	stack := Path{Name: "the IP stack, the kernel's own ARP, forwarded and bridged frames", Closed: d.all && guarded, Why: "`senders: all` judges them"}
	if !d.all {
		stack.ByPolicy = true
		stack.Why = "`senders: packet-sockets` lets them pass; `senders: all` would judge them"
	}
	return []Path{plain, bypass, xdp, stack}
}

// Source is the policy file in force.
func (h Host) Source() (src Source, err error) {
	err = h.use(func(_ *session, st state) (err error) {
		src.Name = st.current.File
		src.Text, err = st.current.source()
		return err
	})
	return src, err
}

// Rules are the rules in force with their counters, then the default's and the malformed frames'.
func (h Host) Rules() (list []Rule, err error) {
	err = h.use(func(_ *session, st state) error {
		p, err := st.current.parse()
		if err != nil {
			return err
		}
		counters, err := st.current.engine.Counters(p)
		if err != nil {
			return err
		}
		for _, c := range counters {
			list = append(list, ruleOf(c))
		}
		list[len(list)-2].Name, list[len(list)-2].Verdict = "default", p.Default.String()
		list[len(list)-1].Name, list[len(list)-1].Verdict = "malformed", firewall.Drop.String()
		if p.MalformedMatch {
			list = list[:len(list)-1]
		}
		return nil
	})
	return list, err
}

func ruleOf(c firewall.Counter) Rule {
	out := Rule{Frames: c.Frames, Bytes: c.Bytes}
	if r := c.Rule; r != nil {
		out.Name, out.Line, out.Verdict, out.Log, out.Audit = r.Name, r.Line, r.Does(), r.Log, r.Audit
		if r.Match != nil {
			out.Match = r.Match.String()
		}
		if r.Limit != nil {
			out.Limit = r.Limit.String()
		}
	}
	return out
}
