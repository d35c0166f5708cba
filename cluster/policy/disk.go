package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Saved is what a node needs to go on alone.
type Saved struct {
	Version Version `json:"version"`
	// Elements are those of sets that end with nothing but a deletion.
	Elements []Element `json:"elements,omitempty"`
}

// Disk is the directory in which the last good policy is kept.
type Disk string

// file is a line that says what it is, one with the digest of what follows, and that.
const (
	fileName   = "cluster-policy"
	fileHeader = "postern: the last good policy of the cluster, 1"
	maxFile    = 4*MaxValue + 128*MaxElements
)

func (d Disk) path() string { return filepath.Join(string(d), fileName) }

// Check makes the directory if need be, and fails if it cannot be written to.
func (d Disk) Check() error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return fmt.Errorf("the directory for the last good policy: %w", err)
	}
	f, err := os.CreateTemp(string(d), fileName+".")
	if err != nil {
		return fmt.Errorf("the directory for the last good policy cannot be written to: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// Load reads what Save wrote, nil if there is nothing. A file that is not as it was written matches
// ErrDamaged.
func (d Disk) Load() (*Saved, error) {
	f, err := os.Open(d.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	s, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; remove it, the agent writes it anew when it reaches etcd", ErrDamaged, d.path(), err)
	}
	return s, nil
}

func decode(b []byte) (*Saved, error) {
	header, rest, _ := strings.Cut(string(b), "\n")
	digest, body, _ := strings.Cut(rest, "\n")
	sum := sha256.Sum256([]byte(body))
	switch {
	case len(b) > maxFile:
		return nil, fmt.Errorf("it is longer than %d bytes", maxFile)
	case header != fileHeader:
		return nil, errors.New("it does not begin as it should")
	case digest != hex.EncodeToString(sum[:]):
		return nil, errors.New("its checksum is another")
	}
	s := &Saved{}
	if err := strict([]byte(body), maxFile, s); err != nil {
		return nil, err
	}
	v, err := s.Version.Encode()
	if err != nil {
		return nil, err
	}
	_, err = ParseVersion(s.Version.Number, v)
	return s, err
}

// Save replaces the file: after a power cut there is the old one or the new one.
func (d Disk) Save(s *Saved) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	if n := len(fileHeader) + 1 + 2*len(sum) + 1 + len(body); n > maxFile {
		return fmt.Errorf("keeping the last good policy: %d bytes with its elements, at most %d: it is not kept", n, maxFile)
	}
	f, err := os.CreateTemp(string(d), fileName+".")
	if err != nil {
		return fmt.Errorf("keeping the last good policy: %w", err)
	}
	_, err = fmt.Fprintf(f, "%s\n%s\n%s", fileHeader, hex.EncodeToString(sum[:]), body)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), d.path())
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("keeping the last good policy: %w", err)
	}
	return d.sync()
}

// sync makes the new name last.
func (d Disk) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
