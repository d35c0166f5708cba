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
	spec *Spec
	prog *ebpf.Program
	maps map[string]*ebpf.Map

	mu   sync.Mutex
	sets map[string]*liveSet
}

// Load makes the maps and loads the program. It needs CAP_BPF and CAP_NET_ADMIN.
// The caller must Close the engine.
func (s *Spec) Load() (_ *Engine, err error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lifting RLIMIT_MEMLOCK, which needs CAP_SYS_RESOURCE on kernels before 5.11: %w", err)
	}
	e := &Engine{spec: s, maps: map[string]*ebpf.Map{}, sets: map[string]*liveSet{}}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	for name, spec := range s.Maps {
		m, err := ebpf.NewMap(spec)
		if err != nil {
			return nil, fmt.Errorf("making the map %s: %w", name, err)
		}
		e.maps[name] = m
	}
	ins := make(asm.Instructions, len(s.Instructions))
	copy(ins, s.Instructions)
	for i := range ins {
		if m := e.maps[ins[i].Reference()]; m != nil && ins[i].IsLoadFromMap() {
			if err := ins[i].AssociateMap(m); err != nil {
				return nil, fmt.Errorf("giving the program the map %s: %w", ins[i].Reference(), err)
			}
		}
	}
	if err := e.fill(); err != nil {
		return nil, err
	}
	e.prog, err = ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Name: fnMain, Type: ebpf.SchedCLS, Instructions: ins, License: "Dual MIT/GPL"}, ebpf.ProgramOptions{LogSizeStart: 16 << 20})
	var rejected *ebpf.VerifierError
	if errors.As(err, &rejected) {
		return nil, fmt.Errorf("the kernel's verifier refused the program of policy %q, which is a bug of this package or of the kernel: %w", s.Program.Policy.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("loading the program of policy %q: %w", s.Program.Policy.Name, err)
	}
	return e, nil
}

// fill puts into the maps what the policy declares.
func (e *Engine) fill() error {
	for name, t := range e.spec.contents {
		if err := t.put(e.maps[name]); err != nil {
			return fmt.Errorf("filling the map %s: %w", name, err)
		}
	}
	for _, l := range e.spec.sets {
		s := &liveSet{layout: l, engine: e}
		e.sets[l.decl.Name] = s
		if err := s.add(l.decl.Elements); err != nil {
			return err
		}
	}
	return nil
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

// rows is b as a slice of arrays of size bytes, which is what BatchUpdate takes.
func rows(b []byte, size int) any {
	row := reflect.ArrayOf(size, reflect.TypeFor[byte]())
	out := reflect.MakeSlice(reflect.SliceOf(row), len(b)/size, len(b)/size)
	for i := range len(b) / size {
		reflect.Copy(out.Index(i), reflect.ValueOf(b[i*size:(i+1)*size]))
	}
	return out.Interface()
}

// Program is what to attach. It belongs to the engine.
func (e *Engine) Program() *ebpf.Program { return e.prog }

// Close forgets the program and its maps; what is attached stays in force.
func (e *Engine) Close() error {
	if e == nil {
		return nil
	}
	var errs []error
	if e.prog != nil {
		errs = append(errs, e.prog.Close())
	}
	for _, m := range e.maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
