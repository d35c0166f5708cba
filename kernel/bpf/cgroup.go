package bpf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// The kernel knows the cgroup of a frame's socket by a number, a policy by its path.
// mapCgroups leads from the number to the path, 8 bytes of its length before it, for those
// paths that the policy asks for: Engine.ResolveCgroups fills it. Any other cgroup is one that
// equals none of them, and so is one that nobody has told of yet. What would need
// the path of every cgroup is refused.
const (
	mapCgroups  = "cgroups"
	maxCgroups  = 1 << 16
	cgroupRoom  = maxBytes
	cgroupBytes = 8 + cgroupRoom

	senderCgroup = "sender.cgroup"
)

// cgroupUse is what a policy asks of sender.cgroup.
type cgroupUse struct {
	paths []string
	parts []cgroupPart // of sets
}

// cgroupPart is a part of a set's elements that cgroups are looked up in.
type cgroupPart struct {
	set  string
	part int
}

func (u *cgroupUse) none() bool { return len(u.paths) == 0 && len(u.parts) == 0 }

// cgroupsOf finds what a policy asks of sender.cgroup; the error names what asks for more
// than equality.
func cgroupsOf(p *firewall.Policy) (u cgroupUse, err error) {
	for _, r := range p.Rules {
		walk(r.Match, func(e filter.Expr) {
			if bad := u.add(e); bad != "" && err == nil {
				err = fmt.Errorf("rule %q: %s: %s: %w", r.Name, e, bad, ErrNotSupported)
			}
		})
	}
	return u, err
}

// add takes down what a test asks for, or says what it asks too much.
func (u *cgroupUse) add(e filter.Expr) (bad string) {
	is := func(r *filter.Ref) bool { return r != nil && r.Field.Name == senderCgroup }
	const only = "the kernel knows a cgroup by its number: write the whole path behind ==, != or in"
	switch e := e.(type) {
	case *filter.Present:
		if is(&e.Field) && e.Field.Slice != nil {
			return only
		}
	case *filter.Compare:
		switch {
		case is(e.Other), is(&e.Field) && (e.Other != nil || e.Field.Slice != nil || e.Op > filter.Ne):
			return only
		case is(&e.Field):
			return u.path(e.Const.Bytes)
		}
	case *filter.In:
		for i := range e.Fields {
			switch {
			case !is(&e.Fields[i]):
			case e.Fields[i].Slice != nil:
				return only
			case e.Set != "":
				if part := (cgroupPart{e.Set, i}); !slices.Contains(u.parts, part) {
					u.parts = append(u.parts, part)
				}
			}
			if is(&e.Fields[i]) {
				for _, r := range e.Elements {
					if string(r.Lo.Bytes) != string(r.Hi.Bytes) {
						return only
					}
					if bad := u.path(r.Lo.Bytes); bad != "" {
						return bad
					}
				}
			}
		}
	}
	return ""
}

func (u *cgroupUse) path(b []byte) (bad string) {
	switch {
	case !strings.HasPrefix(string(b), "/"):
		return `the path of a cgroup begins with "/"`
	case len(b) > cgroupRoom-2:
		return fmt.Sprintf("a path of more than %d bytes", cgroupRoom-2)
	}
	u.paths = append(u.paths, string(b))
	return ""
}

// walk calls fn with every test of an expression.
func walk(e filter.Expr, fn func(filter.Expr)) {
	switch e := e.(type) {
	case nil:
	case *filter.And:
		for _, x := range e.X {
			walk(x, fn)
		}
	case *filter.Or:
		for _, x := range e.X {
			walk(x, fn)
		}
	case *filter.Not:
		walk(e.X, fn)
	default:
		fn(e)
	}
}

// sender asks the kernel who sends the frame.
func (g *gen) sender(c *code) {
	c.or(sFlags, flagSender)
	if !g.opt.anonymous {
		c.ptr(asm.R1, sComm)
		c.imm(asm.R2, 16)
		c.helper(asm.FnGetCurrentComm)
		c.helper(asm.FnGetCurrentUidGid)
		c.st(sUID, asm.R0, asm.Word)
		c.helper(asm.FnGetCurrentPidTgid)
		c.emit(asm.RSh.Imm(asm.R0, 32))
		c.st(sPID, asm.R0, asm.Word)
	}
	if g.uses(senderCgroup) {
		g.cgroup(c)
	}
}

// cgroup brings number and path of the cgroup of the frame's socket to the scratch area.
func (g *gen) cgroup(c *code) {
	known, done := c.label(), c.label()
	c.mov(asm.R1, regSKB)
	c.helper(asm.FnSkbCgroupId)
	c.st(sCgroupID, asm.R0, asm.DWord)
	if g.cgroups.none() {
		return
	}
	g.maps[mapCgroups] = &ebpf.MapSpec{Name: mapCgroups, Type: ebpf.Hash, KeySize: 8, ValueSize: cgroupBytes, MaxEntries: maxCgroups, Flags: noPrealloc}
	c.mapPtr(asm.R1, mapCgroups)
	c.ptr(asm.R2, sCgroupID)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JNE, asm.R0, 0, known)
	// No constant and no element is as long, nor begins so.
	c.sti(sCgroupLen, cgroupRoom-1, asm.DWord)
	c.sti(sCgroup, 0xff, asm.DWord)
	c.ja(done)
	c.mark(known)
	for i := 0; i < cgroupBytes; i += 8 {
		c.emit(asm.LoadMem(asm.R1, asm.R0, int16(i), asm.DWord))
		c.st(sCgroupLen+i, asm.R1, asm.DWord)
	}
	c.mark(done)
}

// cgroupNumber is sender.cgroup as a limit's key.
func cgroupNumber(c *code, none label) {
	c.testBits(sFlags, flagSender, none)
	c.ld(asm.R0, sCgroupID, asm.DWord)
	c.st(sKey, asm.R0, asm.DWord)
}
