package bpf

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// gen emits one policy's program.
type gen struct {
	prog  *firewall.Program
	opt   Options
	plan  *plan
	sets  map[string]*setLayout
	order []*setLayout

	atoms   []atom
	joined  []*joint
	atomBit map[string]int

	funcs map[string]func() *code // to be emitted
	names []string                // in order
	maps  map[string]*ebpf.MapSpec

	// limits are the policy's, limitOf tells a rule's, limitKinds are the lists of
	// fields they are keyed by.
	limits     []*firewall.Limit
	limitOf    map[int]int
	limitKinds [][]*filter.Field
	captures   map[string]int
	cgroups    cgroupUse

	// For index.
	shapes    []*shape
	again     bool // the walk may go on behind a rule
	rests     []restExpr
	restID    map[string]int
	restFuncs []restFunc
	contents  map[string]contents

	// where is what is being compiled, for errors.
	where string
	err   error
}

const fnMain = "postern"

// mapScratch is the scratch area's map.
const mapScratch = "scratch"

func newGen(p *firewall.Program, o Options, plan *plan) *gen {
	g := &gen{prog: p, opt: o, plan: plan, sets: map[string]*setLayout{}, atomBit: map[string]int{}, funcs: map[string]func() *code{}, maps: map[string]*ebpf.MapSpec{}, contents: map[string]contents{}, captures: map[string]int{}, limitOf: map[int]int{}}
	for i, d := range p.Policy.Sets {
		s := layoutSet(d, plan.layout.Sets[i].Slot)
		g.sets[d.Name] = s
		g.order = append(g.order, s)
	}
	g.where = "policy " + p.Policy.Name
	return g
}

// needs has a function emitted, once.
func (g *gen) needs(name string, emit func() *code) {
	if g.funcs[name] == nil {
		g.funcs[name] = emit
		g.names = append(g.names, name)
	}
}

// compile emits everything.
func (g *gen) compile() (asm.Instructions, error) {
	var err error
	if g.cgroups, err = cgroupsOf(g.prog.Policy); err != nil {
		return nil, err
	}
	funcs, order := map[string]asm.Instructions{}, []string{}
	add := func(c *code, fn *btf.Func) {
		ins, err := c.link(fn)
		if err != nil {
			g.fail(err)
		}
		if len(ins) > 0 {
			funcs[c.name] = ins
		}
		order = append(order, c.name)
	}
	add(g.main(), &btf.Func{Name: fnMain, Type: proto(skbPointer), Linkage: btf.GlobalFunc})
	// The walk over options makes the tests that all others need, so it comes when
	// they are known; what it needs itself makes none.
	emitted := 0
	rest := func() {
		for ; emitted < len(g.names); emitted++ {
			name := g.names[emitted]
			add(g.funcs[name](), typeOf(name))
		}
	}
	rest()
	g.needs(fnOption, func() *code { return walkOptions(fnOption, (*code).callback, g.inspectOption) })
	g.needs(fnJoints, g.callJoints)
	rest()
	g.where = "policy " + g.prog.Policy.Name
	out, n := called(funcs, order)
	if n > maxFunctions {
		g.fail(fmt.Errorf("%d functions, more than %d: %w", n, maxFunctions, ErrTooLarge))
	}
	if n := len(out); n > maxInstructions {
		g.fail(fmt.Errorf("%d instructions, more than %d: %w", n, maxInstructions, ErrTooLarge))
	}
	return out, g.err
}

// The kernel's limits: BPF_MAX_SUBPROGS, and a half of BPF_COMPLEXITY_LIMIT_INSNS,
// since the verifier goes more ways than one.
const (
	maxFunctions    = 256
	maxInstructions = 500_000
)

// whole emits cond for a whole expression of the policy.
func (g *gen) whole(c *code, e filter.Expr, yes, no label) {
	g.bounded(c, func() { g.cond(c, e, yes, no) })
}

// bounded sees to it that the verifier can follow what is emitted.
func (g *gen) bounded(c *code, emit func()) {
	before := len(c.jumps)
	emit()
	if n := len(c.jumps) - before; n > maxJumps-functionSize/2 {
		g.fail(fmt.Errorf("its match takes %d jumps, more than the %d that the verifier follows: put long lists into a set: %w", n, maxJumps-functionSize/2, ErrTooLarge))
	}
}

// called joins the functions that the first one leads to: the kernel refuses others.
func called(funcs map[string]asm.Instructions, order []string) (out asm.Instructions, n int) {
	seen, work := map[string]bool{order[0]: true}, []string{order[0]}
	for len(work) > 0 {
		for _, ins := range funcs[work[0]] {
			if r := ins.Reference(); funcs[r] != nil && !seen[r] {
				seen[r] = true
				work = append(work, r)
			}
		}
		work = work[1:]
	}
	for _, name := range order {
		if seen[name] {
			out = append(out, funcs[name]...)
			n++
		}
	}
	return out, n
}

// typeOf is a function's type. Callbacks must be static, and are looked at as often
// as they are called; the verifier looks at any other function once and by itself,
// which keeps the number of ways through the program small.
func typeOf(name string) *btf.Func {
	if name == fnOption || strings.HasPrefix(name, "set_mask_") || strings.HasPrefix(name, fnEach) {
		t := &btf.FuncProto{Return: long, Params: []btf.FuncParam{{Name: "index", Type: u32}, {Name: "ctx", Type: void}}}
		return &btf.Func{Name: name, Type: t, Linkage: btf.StaticFunc}
	}
	params := []btf.Type{skbPointer, scratchPointer}
	switch {
	case name == fnStill:
		// The place and the number are in the scratch area.
	case name == fnTagged, name == fnCutText:
		params = append(params, u32, u32, u32)
	case name == fnHashText:
		params = append(params, u32, u32)
	case strings.HasPrefix(name, fnRest), name == fnTake:
		params = append(params, u32)
	}
	return &btf.Func{Name: name, Type: proto(params...), Linkage: btf.GlobalFunc}
}

var (
	u32            = &btf.Int{Name: "unsigned int", Size: 4}
	long           = &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	void           = &btf.Pointer{Target: (*btf.Void)(nil)}
	scratchPointer = &btf.Pointer{Target: scratchType()}
	skbPointer     = &btf.Pointer{Target: &btf.Struct{Name: "__sk_buff", Size: 192}}
)

func proto(params ...btf.Type) *btf.FuncProto {
	p := &btf.FuncProto{Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}}
	for i, t := range params {
		p.Params = append(p.Params, btf.FuncParam{Name: fmt.Sprintf("a%d", i), Type: t})
	}
	return p
}

// uses reports whether the policy reads any of the fields whose names have the prefix.
func (g *gen) uses(prefix string) bool {
	found := false
	g.eachTest(func(refs ...filter.Ref) {
		for _, r := range refs {
			found = found || strings.HasPrefix(r.Field.Name, prefix)
		}
	})
	return found
}

// eachTest calls fn with the fields of every test in the policy, and those of every limit.
func (g *gen) eachTest(fn func(refs ...filter.Ref)) {
	for _, r := range g.prog.Policy.Rules {
		walk(r.Match, func(e filter.Expr) {
			switch e := e.(type) {
			case *filter.Present:
				fn(e.Field)
			case *filter.Test:
				fn(e.Field)
			case *filter.Compare:
				if e.Other != nil {
					fn(e.Field, *e.Other)
				} else {
					fn(e.Field)
				}
			case *filter.In:
				fn(e.Fields...)
			}
		})
		if r.Limit != nil {
			for _, f := range r.Limit.Per {
				fn(filter.Ref{Field: f})
			}
		}
	}
}

// scratchType is the scratch area, as far as the verifier wants to know it.
func scratchType() btf.Type {
	bytes := &btf.Array{Index: u32, Type: &btf.Int{Name: "unsigned char", Size: 1}, Nelems: scratchSize}
	return &btf.Struct{Name: "postern_scratch", Size: scratchSize, Members: []btf.Member{{Name: "bytes", Type: bytes}}}
}
