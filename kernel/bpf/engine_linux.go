package bpf

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// Engine is a policy in the kernel, ready to be attached. It is safe for use by
// many goroutines.
type Engine struct {
	layout Layout
	progs  map[Variant]*ebpf.Program
	maps   map[string]*ebpf.Map
	prog   *ebpf.Program // the first variant's

	mu sync.Mutex
}

// Load makes the maps and loads the programs. It needs CAP_BPF and CAP_NET_ADMIN.
// What Options.Before hands over is shared with its engine from then on, which may be
// closed. The caller must Close the engine.
func (s *Spec) Load() (_ *Engine, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("making a map takes CAP_BPF in the first user namespace, and lifting RLIMIT_MEMLOCK, on kernels before 5.11, CAP_SYS_RESOURCE: %w", err)
	}
	e := &Engine{layout: s.Layout, progs: map[Variant]*ebpf.Program{}, maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	if err := s.makeMaps(e); err != nil {
		return nil, err
	}
	if err := s.handOver(e); err != nil {
		return nil, err
	}
	for _, v := range s.Layout.Variants {
		if e.progs[v], err = s.load(e, v); err != nil {
			return nil, err
		}
	}
	e.prog = e.progs[s.Layout.Variants[0]]
	return e, nil
}

// makeMaps makes what is not shared.
func (s *Spec) makeMaps(e *Engine) (err error) {
	specs := map[string]*ebpf.MapSpec{}
	for name, spec := range s.Maps {
		specs[name] = spec
	}
	for i, l := range s.sets {
		specs[rangesMapName(l.index)] = l.rangesSpec(s.Layout.Sets[i].Size)
	}
	for name, spec := range specs {
		if s.plan.share[name] {
			e.maps[name], err = s.Options.Before.engine.maps[name].Clone()
		} else {
			e.maps[name], err = ebpf.NewMap(spec)
		}
		if err != nil {
			return fmt.Errorf("making the map %s: %w", name, err)
		}
	}
	for name, t := range s.contents {
		if err := t.put(e.maps[name]); err != nil {
			return fmt.Errorf("filling the map %s: %w", name, err)
		}
	}
	return nil
}

// license is the programs': some of what they call is for this kind alone.
const license = "Dual MIT/GPL"

func (s *Spec) load(e *Engine, v Variant) (*ebpf.Program, error) {
	ins := make(asm.Instructions, len(s.Instructions[v]))
	copy(ins, s.Instructions[v])
	for i := range ins {
		if m := e.maps[ins[i].Reference()]; m != nil && ins[i].IsLoadFromMap() {
			if err := ins[i].AssociateMap(m); err != nil {
				return nil, fmt.Errorf("giving the program the map %s: %w", ins[i].Reference(), err)
			}
		}
	}
	p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Name: fnMain, Type: ebpf.SchedCLS, Instructions: ins, License: license}, ebpf.ProgramOptions{LogSizeStart: 16 << 20})
	var rejected *ebpf.VerifierError
	if errors.As(err, &rejected) {
		return nil, fmt.Errorf("the kernel's verifier refused the program of policy %q, which is a bug of this package or of the kernel: %w", s.Program.Policy.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("loading the program of policy %q: %w", s.Program.Policy.Name, err)
	}
	return p, nil
}

// put writes everything in one batch.
func (t contents) put(m *ebpf.Map) error {
	n := len(t.keys) / t.keySize
	if n == 0 {
		return nil
	}
	_, err := m.BatchUpdate(rows(t.keys, t.keySize), rows(t.vals, t.valSize), nil)
	return err
}

// rows is b as a slice of arrays of size bytes, which is what batches take.
func rows(b []byte, size int) any {
	row := reflect.ArrayOf(size, reflect.TypeFor[byte]())
	out := reflect.MakeSlice(reflect.SliceOf(row), len(b)/size, len(b)/size)
	for i := range len(b) / size {
		reflect.Copy(out.Index(i), reflect.ValueOf(b[i*size:(i+1)*size]))
	}
	return out.Interface()
}

// flat is the inverse of rows, for the first n of them.
func flat(rows any, n, size int) []byte {
	b, v := make([]byte, n*size), reflect.ValueOf(rows)
	for i := range n {
		reflect.Copy(reflect.ValueOf(b[i*size:(i+1)*size]), v.Index(i))
	}
	return b
}

// Layout is where the maps hold what; whoever opens their pins needs it.
func (e *Engine) Layout() Layout { return e.layout }

// Program is what to attach: the program of the first variant. It belongs to the engine.
func (e *Engine) Program() *ebpf.Program { return e.prog }

// ProgramOf is the program of a variant, nil if there is none. It belongs to the engine.
func (e *Engine) ProgramOf(v Variant) *ebpf.Program { return e.progs[v] }

// Close forgets the programs and their maps; what is attached stays in force.
func (e *Engine) Close() error {
	if e == nil {
		return nil
	}
	var errs []error
	for _, p := range e.progs {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	for _, m := range e.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
