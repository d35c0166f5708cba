package bpf

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

// Pins are files in a directory of a bpffs: a map each, and "prog_" and its variant for
// each program.
const pinProgram = "prog_"

// Pin keeps the maps and programs in an empty directory of a bpffs, which must exist.
func (e *Engine) Pin(dir string) error {
	for name, m := range e.maps {
		// A shared map is pinned where its first owner did, and its clone has no pin.
		if err := m.Pin(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pinning the map %s: %w", name, err)
		}
	}
	for v, p := range e.progs {
		if err := p.Pin(filepath.Join(dir, pinProgram+v.String())); err != nil {
			return fmt.Errorf("pinning the program %s: %w", v, err)
		}
	}
	return nil
}

// Open finds what Pin kept. The caller must Close the engine.
func Open(dir string, l Layout) (_ *Engine, err error) {
	e := &Engine{layout: l, progs: map[Variant]*ebpf.Program{}, maps: map[string]*ebpf.Map{}}
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), pinProgram) || f.Type() != 0 {
			continue
		}
		if e.maps[f.Name()], err = ebpf.LoadPinnedMap(filepath.Join(dir, f.Name()), nil); err != nil {
			return nil, fmt.Errorf("opening the map %s: %w", filepath.Join(dir, f.Name()), err)
		}
	}
	for _, v := range l.Variants {
		path := filepath.Join(dir, pinProgram+v.String())
		if e.progs[v], err = ebpf.LoadPinnedProgram(path, nil); err != nil {
			return nil, fmt.Errorf("opening the program %s: %w", path, err)
		}
	}
	e.prog = e.progs[l.Variants[0]]
	for _, name := range []string{mapRules, mapCounters, mapEvents} {
		if e.maps[name] == nil {
			return nil, fmt.Errorf("%s: the map %s is missing: %w", dir, name, fs.ErrNotExist)
		}
	}
	return e, nil
}
