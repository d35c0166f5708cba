package matrix

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/evasions"
)

// scene is a device above or below a guarded one, and what must come of frames that are
// sent there.
type scene struct {
	name string
	// build makes the devices. Frames are sent at the one it returns, of namespace ns.
	build func(t *testing.T, w *world) device
	ns    int
	// guarded hold every forged frame. notEnough, if any, let all pass.
	guarded, notEnough []string
	// changed is what the device makes of a frame, and what the policy judges: nil for
	// the frame itself. inner is what of an arriving frame to look at.
	changed, inner func([]byte) []byte
	// loses is where, being guarded, no honest frame arrives either.
	loses map[firewall.Hook]bool
	// partly says that what is not enough holds some.
	partly bool
}

// A limit: three gates can be in each other (NF_RECURSION_LIMIT).
var tooDeep = map[firewall.Hook]bool{firewall.HookGate: true}

var scenes = []scene{
	{name: "macvlan", build: macvlan, guarded: []string{"near"}},
	{name: "macvlan in another namespace", build: macvlanAway, ns: 1, guarded: []string{"near"}},
	{name: "macvlan, guarded too", build: macvlan, guarded: []string{"near", "upper"}},
	{name: "below a guarded macvlan", build: belowMacvlan, guarded: []string{"near", "upper"}, notEnough: []string{"upper"}},
	{name: "bridge with one port", build: bridge, guarded: []string{"near"}},
	// Of a frame that is flooded to several ports all but the last are copies without a
	// socket (deliver_clone). Those of UDP are judged all the same, but the kernel's own ARP looks no
	// different: for packet sockets the bridge is the door.
	{name: "bridge with two ports", build: bridgeOfTwo, guarded: []string{"near", "upper"}, notEnough: []string{"near"}, partly: true},
	{name: "bridge over macvlan, all guarded", build: bridgeOverMacvlan, guarded: []string{"near", "between", "upper"}},
	{name: "four guarded over each other", build: fourDeep, guarded: []string{"near", "between", "upper", "top"}, loses: tooDeep},
	{name: "VLAN", build: vlan, guarded: []string{"near"}, changed: tagged},
	// A tunnel's packet is the IP stack's: what is inside is judged on the overlay.
	{name: "VXLAN", build: vxlan, guarded: []string{"near", "overlay"}, notEnough: []string{"near"}, inner: inTunnel},
	{name: "bridge over VXLAN", build: bridgeOverVXLAN, guarded: []string{"near", "overlay"}, notEnough: []string{"near"}, inner: inTunnel},
	{name: "VXLAN below a guarded bridge", build: belowBridge, guarded: []string{"overlay", "upper"}, notEnough: []string{"upper"}, inner: inTunnel},
}

// TestDevices: each device is a door of its own. No forged frame gets out by another, be it
// above the guarded one or below, and each honest one arrives once.
func TestDevices(t *testing.T) {
	var tb table
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) { s.test(t, &tb) })
	}
	t.Logf("\n%s", &tb)
}

func (s scene) test(t *testing.T, tb *table) {
	w := newWorld(t)
	d := s.build(t, w)
	w.sendAs(d.mac)
	r := receive(t, w.Pair)
	r.inner = s.inner
	changed := asSent
	if s.changed != nil {
		changed = s.changed
	}
	for i, role := range w.roles {
		w.roles[i] = role.changed(t, changed)
	}
	// Those that look different to the kernel.
	list := some()
	if w.tagsByTC {
		list = slices.DeleteFunc(list, func(p path) bool { return p.bypass })
	}
	senders := w.openAt(t, s.ns, d, list)
	for _, h := range []*how{s.less(), {devices: s.guarded, hook: firewall.HookGate}, {devices: s.guarded, hook: firewall.HookTC}} {
		w.unguard(t)
		for _, role := range w.roles {
			if h != nil {
				w.guard(t, role.policy, *h)
			}
			for _, sender := range senders {
				sum, err := r.measure(sender, role, changed)
				must(t, err)
				s.expect(t, tb, h, sender.path, role, sum)
			}
		}
	}
}

// less is no guard, or one that is not enough.
func (s scene) less() *how {
	if s.notEnough == nil {
		return nil
	}
	return &how{devices: s.notEnough}
}

// expect holds what became of a role's frames by a path against what must.
func (s scene) expect(t *testing.T, tb *table, h *how, p path, role *role, sum tally) {
	t.Helper()
	switch {
	case h == nil, slices.Equal(h.devices, s.notEnough):
		// A tunnel refuses what is too short for the protocol that it claims to be
		// (pskb_inet_may_pull in vxlan_xmit_one).
		if s.inner == nil && !s.partly || s.inner != nil && (sum.out < sum.forged*9/10 || sum.once != sum.honest) {
			sum.expectOpen(t, fmt.Sprintf("%s, %s", role.policy.Name, p))
		}
		tb.add("not guarded there", s.name, sum)
	case h.hook == firewall.HookTC && p.bypass: // the matrix has it
	default:
		if s.loses[h.hook] {
			if sum.once > 0 {
				t.Errorf("%s: %s: of honest frames %d arrived: a limit is gone", h.hook, p, sum.once)
			}
			sum.lostOnes = nil
		}
		sum.expectClosed(t, fmt.Sprintf("%s, %s, %s", h.hook, role.policy.Name, p))
		tb.add("guarded by "+h.hook.String(), s.name, sum)
	}
}

// changed are the frames as a device changes them, judged anew by Classify: what was
// forged is so still, and not all of what was honest is.
func (r *role) changed(t testing.TB, change func([]byte) []byte) *role {
	t.Helper()
	accepts := classifier(t, r.policy)
	out := &role{policy: r.policy, forged: r.forged}
	for _, frame := range r.forged {
		if accepts(change(frame.Bytes)) {
			t.Errorf("policy %s accepts a forged frame that a device changed: %x", r.policy.Name, change(frame.Bytes))
		}
	}
	for _, frame := range r.honest {
		if accepts(change(frame.Bytes)) {
			out.honest = append(out.honest, frame)
		} else {
			out.forged = append(slices.Clone(out.forged), frame)
		}
	}
	return out
}

// classifier is the policy in process.
func classifier(t testing.TB, policy *evasions.Policy) (accepts func(frame []byte) bool) {
	t.Helper()
	parsed, _, err := firewall.Parse(policy.Name, policy.YAML)
	must(t, err)
	f, err := firewall.New(parsed)
	must(t, err)
	for _, live := range policy.Live {
		for _, decl := range parsed.Sets {
			if decl.Name == live.Set {
				element, err := decl.Element(live.Parts...)
				must(t, err)
				f.UpdateSet(live.Set, func(s *firewall.Set) { s.Add(element) })
			}
		}
	}
	return func(frame []byte) bool {
		var p filter.Packet
		p.Decode(frame, nil)
		return f.Classify(&p).Verdict == firewall.Accept
	}
}

func tagged(b []byte) []byte {
	return bytes.Join([][]byte{b[:12], {0x81, 0, 0, evasions.VLAN}, b[12:]}, nil)
}

// inTunnel takes off what a VXLAN device puts in front: Ethernet, IPv4, UDP, its header.
func inTunnel(b []byte) []byte {
	const outer = 14 + 20 + 8 + 8
	if len(b) > outer && b[23] == unix.IPPROTO_UDP && string(b[36:38]) == "\x12\xb5" { // 4789
		return b[outer:]
	}
	return b
}
