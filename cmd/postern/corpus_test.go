package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpus unpacks the captures and gives their names.
func corpus(t *testing.T) []string {
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "corpus", "captures.tar.gz"))
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs the corpus")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	dir := t.TempDir()
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.Base(h.Name))
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
}

// TestReplayCorpus: every capture ends with a report, and with exit code 0 or
// the one error that is declared for a file that cannot be read to its end.
func TestReplayCorpus(t *testing.T) {
	names := corpus(t)
	frames, damaged := 0, 0
	for _, name := range names {
		var out, errs bytes.Buffer
		switch code := run([]string{"replay", "--json", "-f", "testdata/good.yaml", name}, nil, &out, &errs); {
		case code == exitNo && strings.HasPrefix(errs.String(), "postern: "+name):
			damaged++
			t.Log(strings.TrimSpace(errs.String()))
		case code != 0:
			t.Errorf("%s: exit code %d: %s", name, code, errs.String())
		}
		frames += judged(t, name, out.Bytes())
	}
	if len(names) < 400 || damaged > 4 {
		t.Errorf("%d captures, %d damaged", len(names), damaged)
	}
	t.Logf("%d captures, %d frames, %d damaged", len(names), frames, damaged)
}

// judged counts the objects, each of which must have what the contract names.
func judged(t *testing.T, name string, out []byte) (frames int) {
	for line := range bytes.Lines(out) {
		var d struct {
			Frame                 int
			Verdict, Rule, Reason string
		}
		if err := json.Unmarshal(line, &d); err != nil || d.Frame < 1 || d.Verdict == "" || d.Rule == "" || d.Reason == "" {
			t.Errorf("%s: %s: %v", name, line, err)
		}
		frames++
	}
	return frames
}
