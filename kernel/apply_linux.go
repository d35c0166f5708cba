package kernel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
	"github.com/postern-fw/postern/kernel/gate"
	"github.com/postern-fw/postern/kernel/seal"
)

// Apply puts a policy in force in place of what was there, and returns when it is. On an error
// what was in force still is.
//
// The error is a firewall.Diagnostics for a policy that is wrong, and matches ErrNoGuard for one that
// guards nothing; bpf.ErrNotSupported or bpf.ErrTooLarge, with the rule's name, for one that the
// engine cannot express; bpffs.ErrNone, os.ErrPermission and the errors of packages
// gate, tc and seal for what the machine refuses.
func (h Host) Apply(src Source, o ApplyOptions) (*Status, error) {
	policy, _, err := firewall.Parse(src.Name, src.Text)
	if err != nil {
		return nil, err
	}
	if len(policy.Guard) == 0 {
		return nil, fmt.Errorf("%s: %w: write `guard: [{interfaces: [eth0]}]`", src.Name, ErrNoGuard)
	}
	s, err := h.enter(true)
	if err != nil {
		return nil, err
	}
	defer s.leave()
	s.collect()
	st, err := s.resolve()
	if err != nil {
		return nil, err
	}
	defer st.close()
	next, err := s.prepare(st, policy, src, o)
	if err != nil {
		return nil, err
	}
	defer next.close()
	if err := s.commit(st, next); err != nil {
		return nil, err
	}
	return s.status(s.after(st, next))
}

// after is the state that next makes of one.
func (s *session) after(st state, next *generation) state {
	out := state{current: next, pending: next.Until != 0}
	if out.pending {
		out.before = st.current
		if st.pending { // what it was to go back to still is
			out.before = st.before
		}
	}
	return out
}

// prepare loads and pins the next generation. Nothing is judged by it yet.
func (s *session) prepare(st state, policy *firewall.Policy, src Source, o ApplyOptions) (g *generation, err error) {
	list, err := s.generations()
	if err != nil {
		return nil, err
	}
	g = &generation{policy: policy}
	g.meta = meta{Version: metaVersion, Generation: 1, Policy: policy.Name, File: src.Name, Applied: time.Now().Round(0)}
	for _, n := range list {
		g.Generation = max(g.Generation, n+1)
	}
	if o.Confirm > 0 {
		g.Until = bootTime() + int64(o.Confirm)
	}
	if err := s.chooseHook(st, g); err != nil {
		return nil, err
	}
	opt := bpf.Options{Generation: uint32(g.Generation)}
	var all []bpf.Variant
	all, g.Gate = variants(policy, g.Auto, g.Until != 0 || st.pending)
	opt.Gate, opt.AllSenders, opt.PerInterface, opt.Ingress, opt.Also = all[0].Gate, all[0].AllSenders, all[0].PerInterface, all[0].Ingress, all[1:]
	if st.current != nil {
		old, err := st.current.parse()
		if err != nil {
			return nil, err
		}
		if opt.Before, err = st.current.engine.Handover(old); err != nil {
			return nil, err
		}
	}
	spec, err := bpf.Compile(firewall.Compile(policy), opt)
	if err != nil {
		return nil, err
	}
	g.Layout, g.dir = spec.Layout, s.path(generationName(g.Generation))
	if g.engine, err = spec.Load(); err != nil {
		return nil, err
	}
	if err := g.save(src.Text); err != nil {
		g.close()
		return nil, errors.Join(err, removeTree(g.dir))
	}
	return g, nil
}

// chooseHook decides what `hook: auto` is: the cheapest that closes every path that can be
// closed here.
func (s *session) chooseHook(st state, g *generation) error {
	needsGate, auto := false, false
	for _, x := range g.policy.Guard {
		needsGate = needsGate || x.Hook == firewall.HookGate
		auto = auto || x.Hook == firewall.HookAuto && x.Direction == firewall.Egress
	}
	err := gate.Probe(s.NetNS)
	if err != nil && needsGate {
		return err
	}
	g.Auto = firewall.HookGate
	if err != nil {
		g.Auto = firewall.HookTC
	} else if auto && g.Until == 0 && s.allSealed(st, g.policy) {
		g.Auto, g.Sealed = firewall.HookTC, true
	}
	return nil
}

// allSealed says whether every packet socket of the machine is below a seal that the policy
// wants: then none can bypass tc. A socket from before the seal could.
func (s *session) allSealed(st state, p *firewall.Policy) bool {
	for _, cgroup := range p.Seal {
		sl, err := s.seal(cgroup)
		if err != nil || !wholeMachine(sl.Cgroup) {
			continue
		}
		if state, err := sl.Status(); err == nil && state.Sealed && open32(state) == "" && st.current != nil && st.current.Sealed {
			return true // since then there has been none without
		}
		if sl.Install() != nil || s.packetSockets() {
			return false
		}
		state, err := sl.Status()
		return err == nil && open32(state) == ""
	}
	return false
}

// open32 says why 32-bit calls pass a seal, or "". It is a variable since a test's kernel may not
// have what closes them.
var open32 = func(s seal.State) string { return s.Open32 }

// wholeMachine says whether a cgroup is the root of all, not that of a cgroup namespace. It is a
// variable since a test must not seal the machine.
var wholeMachine = func(cgroup string) bool {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, cgroup, 0)
	return err == nil && h.Size() == 8 && binary.NativeEndian.Uint64(h.Bytes()) == 1 // cgroup_root's kernfs_root
}

// packetSockets says whether there is any packet socket in the namespace, or may be.
func (s *session) packetSockets() bool {
	some := true
	_ = s.inNetNS(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/packet")
		some = err != nil || strings.Count(strings.TrimSpace(string(b)), "\n") > 0
		return nil
	})
	return some
}

// seal is the seal of a cgroup of a policy.
func (s *session) seal(cgroup string) (seal.Seal, error) {
	path := cgroup
	if mount, err := cgroup2Mount(); err == nil && !strings.HasPrefix(cgroup, mount) {
		path = filepath.Join(mount, cgroup)
	}
	sum := sha256.Sum256([]byte(path))
	return seal.Seal{Cgroup: path, Pin: filepath.Join(s.path(nameSeals), "seal_"+hex.EncodeToString(sum[:8]))}, nil
}

// cgroup2Mount is where the cgroup2 file system is mounted.
func cgroup2Mount() (string, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", fmt.Errorf("%w: no file system of type cgroup2 is mounted (mount -t cgroup2 none /sys/fs/cgroup)", seal.ErrNoCgroup2)
}

// commit exchanges what is in force for the next generation, or leaves all as it was.
func (s *session) commit(st state, next *generation) error {
	was, err := s.target(nameCurrent)
	if err != nil {
		return err
	}
	wasBefore, err := s.target(nameBefore)
	if err != nil {
		return err
	}
	before := ""
	if next.Until != 0 {
		if before = was; st.pending {
			before = wasBefore
		}
		if before == "" {
			before = nothing
		}
	}
	// Until the link leads to the next generation, what was in force is; from then on,
	// whoever comes after a kill goes on to the next one.
	err = s.begin()
	if err == nil && before != "" {
		err = s.point(nameBefore, before)
	}
	if err == nil {
		err = s.point(nameCurrent, filepath.Base(next.dir))
	}
	if err == nil && before == "" {
		err = s.point(nameBefore, "")
	}
	if err == nil {
		err = s.converge(s.after(st, next))
	}
	if err == nil {
		return errors.Join(s.sweep(), s.end())
	}
	back := errors.Join(s.point(nameCurrent, was), s.point(nameBefore, wasBefore), s.converge(st), s.sweep(), s.end())
	if back != nil {
		back = fmt.Errorf("and going back to what was in force: %w", back)
	}
	return errors.Join(err, back)
}

// resolve finishes what a process began that was killed, and takes away what waited for
// confirmation too long; it returns what is in force then. The caller must close it.
func (s *session) resolve() (st state, err error) {
	if s.lock == nil {
		return st, nil
	}
	if st, err = s.load(); err != nil {
		return st, err
	}
	if st.pending && bootTime() >= st.current.Until {
		if err := s.goBack(); err != nil {
			st.close()
			return state{}, err
		}
		st.close()
		if st, err = s.load(); err != nil {
			return st, err
		}
	}
	if !s.unfinished() {
		return st, nil
	}
	if err := errors.Join(s.converge(st), s.sweep(), s.end()); err != nil {
		st.close()
		return state{}, fmt.Errorf("finishing what another process began: %w", err)
	}
	return st, nil
}

// goBack makes the links lead to what was in force before. The hooks follow by resolve.
func (s *session) goBack() error {
	before, err := s.target(nameBefore)
	if err != nil {
		return err
	}
	if before == nothing {
		before = ""
	}
	return errors.Join(s.begin(), s.point(nameCurrent, before), s.point(nameBefore, ""))
}

// Confirm keeps the policy that waits for it. It fails with ErrNotPending, also when the
// deadline has passed. Where it cannot be kept (a cgroup cannot be sealed), it waits on.
func (h Host) Confirm() error {
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
	if !st.pending {
		return ErrNotPending
	}
	before, err := s.target(nameBefore)
	if err != nil {
		return err
	}
	if err = errors.Join(s.begin(), s.point(nameBefore, "")); err == nil {
		err = s.converge(state{current: st.current})
	}
	if err == nil {
		return errors.Join(s.sweep(), s.end())
	}
	// It waits still, and the kernel goes back when its time is over.
	if back := errors.Join(s.point(nameBefore, before), s.converge(st), s.end()); back != nil {
		err = fmt.Errorf("%w; and waiting on: %w", err, back)
	}
	return err
}

// Rollback goes back at once from a policy that waits to be confirmed. It fails with ErrNotPending.
func (h Host) Rollback() error {
	s, err := h.enter(false)
	if err != nil {
		return err
	}
	defer s.leave()
	st, err := s.resolve()
	if err != nil {
		return err
	}
	pending := st.pending
	st.close()
	if !pending {
		return ErrNotPending
	}
	if err := s.goBack(); err != nil {
		return err
	}
	st, err = s.resolve()
	st.close()
	return err
}

// Flush takes everything away. That there is nothing is no error.
func (h Host) Flush() error {
	s, err := h.enter(false)
	if err != nil {
		return err
	}
	defer s.leave()
	if s.lock == nil {
		// The gate may be there all the same, if someone removed the pins by hand.
		return s.gate().Remove()
	}
	if err := errors.Join(s.begin(), s.point(nameCurrent, ""), s.point(nameBefore, "")); err != nil {
		return err
	}
	if err := s.converge(state{}); err != nil {
		return err
	}
	return errors.Join(s.sweep(), removeTree(s.dir))
}

func bootTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 1<<63 - 1 // no clock: every deadline has passed
	}
	return ts.Nano()
}
