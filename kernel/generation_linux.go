package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
)

// meta is what is kept beside a generation's maps.
type meta struct {
	Version    int           `json:"version"`
	Generation uint64        `json:"generation"`
	Policy     string        `json:"policy"`
	File       string        `json:"file"`
	Applied    time.Time     `json:"applied"`
	Layout     bpf.Layout    `json:"layout"`
	Gate       *bpf.Variant  `json:"gate,omitempty"`
	Auto       firewall.Hook `json:"auto"`
	// Sealed says that every socket of the machine was made below a seal, or is no packet
	// socket: then tc alone closes what bypass opens.
	Sealed bool `json:"sealed,omitempty"`
	// Until is when the kernel goes back to what was before, CLOCK_BOOTTIME in nanoseconds; 0 is
	// never.
	Until int64 `json:"until,omitempty"`
}

const metaVersion = 1

// generation is a policy that is, or was, to be in force.
type generation struct {
	meta
	dir    string
	engine *bpf.Engine
	policy *firewall.Policy // nil until parse
}

func (g *generation) close() {
	if g != nil {
		g.engine.Close()
	}
}

// Pins beside the engine's.
const (
	pinMeta   = "meta"
	pinSource = "source"
)

// save pins the generation in its directory.
func (g *generation) save(source []byte) error {
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return err
	}
	if err := g.engine.Pin(g.dir); err != nil {
		return err
	}
	if err := writeBlob(filepath.Join(g.dir, pinSource), source); err != nil {
		return err
	}
	b, err := json.Marshal(g.meta)
	if err != nil {
		return err
	}
	return writeBlob(filepath.Join(g.dir, pinMeta), b)
}

// openGeneration finds what save pinned.
func openGeneration(dir string) (*generation, error) {
	g := &generation{dir: dir}
	b, err := readBlob(filepath.Join(dir, pinMeta))
	if err == nil {
		err = json.Unmarshal(b, &g.meta)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is in force: %s: %w", dir, err)
	}
	if g.Version != metaVersion {
		return nil, fmt.Errorf("%s is of another version of postern (%d, not %d): flush with that one", dir, g.Version, metaVersion)
	}
	g.engine, err = bpf.Open(dir, g.Layout)
	return g, err
}

// source is the policy file's text.
func (g *generation) source() ([]byte, error) { return readBlob(filepath.Join(g.dir, pinSource)) }

// parse reads the policy again, as far as it is needed.
func (g *generation) parse() (*firewall.Policy, error) {
	if g == nil || g.policy != nil {
		if g == nil {
			return nil, nil
		}
		return g.policy, nil
	}
	text, err := g.source()
	if err != nil {
		return nil, err
	}
	g.policy, _, err = firewall.Parse(g.File, text)
	return g.policy, err
}

// A blob is bytes, compressed, in a pinned array of pieces, their length before them: so the
// policy lives just as long as what enforces it.
const blobPiece = 4096

func writeBlob(path string, b []byte) error {
	var packed bytes.Buffer
	packed.Write(make([]byte, 8))
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(b); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	binary.BigEndian.PutUint64(packed.Bytes(), uint64(packed.Len()-8))
	n := (packed.Len() + blobPiece - 1) / blobPiece
	packed.Write(make([]byte, n*blobPiece-packed.Len()))
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "blob", Type: ebpf.Array, KeySize: 4, ValueSize: blobPiece, MaxEntries: uint32(n)})
	if err != nil {
		return fmt.Errorf("making a map for %s: %w", path, err)
	}
	defer m.Close()
	for i := range n {
		if err := m.Put(uint32(i), packed.Bytes()[i*blobPiece:(i+1)*blobPiece]); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
	}
	if err := m.Pin(path); err != nil {
		return fmt.Errorf("pinning %s: %w", path, err)
	}
	return nil
}

func readBlob(path string) ([]byte, error) {
	m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	defer m.Close()
	var all []byte
	piece := make([]byte, blobPiece)
	for i := range m.MaxEntries() {
		if err := m.Lookup(i, piece); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		all = append(all, piece...)
	}
	n := binary.BigEndian.Uint64(all)
	if n > uint64(len(all)-8) {
		return nil, fmt.Errorf("%s: %w", path, io.ErrUnexpectedEOF)
	}
	z, err := gzip.NewReader(bytes.NewReader(all[8 : 8+n]))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return io.ReadAll(io.LimitReader(z, firewall.MaxPolicyBytes+1<<20))
}

// state is which generations are in force. Without a deadline before is nil.
type state struct {
	current, before *generation
	// pending is true if current is in force until its deadline only; before may be nil then:
	// nothing.
	pending bool
}

func (st *state) close() {
	st.current.close()
	st.before.close()
}

// load opens the generations that the links lead to.
func (s *session) load() (st state, err error) {
	if s.lock == nil {
		return st, nil
	}
	defer func() {
		if err != nil {
			st.close()
			st = state{}
		}
	}()
	current, err := s.target(nameCurrent)
	if err != nil || current == "" {
		return st, err
	}
	before, err := s.target(nameBefore)
	if err != nil {
		return st, err
	}
	if st.current, err = openGeneration(s.path(current)); err != nil {
		return st, err
	}
	if st.pending = before != "" && before != current && st.current.Until != 0; !st.pending || before == nothing {
		return st, nil
	}
	st.before, err = openGeneration(s.path(before))
	return st, err
}

// sweep removes the generations that no link leads to.
func (s *session) sweep() error {
	current, err := s.target(nameCurrent)
	if err != nil {
		return err
	}
	before, err := s.target(nameBefore)
	if err != nil {
		return err
	}
	list, err := s.generations()
	if err != nil {
		return err
	}
	for _, n := range list {
		if name := generationName(n); name != current && name != before {
			err = errors.Join(err, removeTree(s.path(name)))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
