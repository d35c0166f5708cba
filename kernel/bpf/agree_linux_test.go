package bpf

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/postern-fw/postern/internal/capture"
)

var corpusFile = filepath.Join("..", "..", "..", "shared", "corpus", "captures.tar.gz")

// corpus gives every frame of every capture.
func corpus(t testing.TB) (frames [][]byte) {
	f, err := os.Open(corpusFile)
	if err != nil {
		cannot(t, "needs the corpus")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || !strings.Contains(h.Name, ".pcap") {
			continue
		}
		r, err := capture.NewReader(h.Name, tr)
		if err != nil {
			continue
		}
		for {
			fr, err := r.Next()
			if err != nil {
				break
			}
			frames = append(frames, append([]byte(nil), fr.Data...))
		}
	}
}

const plain = "policy: p\nrules: []\ndefault: accept\n"

func TestCorpusParse(t *testing.T) {
	pin(t)
	p := both(t, plain, Options{})
	bad := 0
	frames := corpus(t)
	for _, f := range frames {
		if !p.agree("corpus", f, 0) {
			if bad++; bad > 5 {
				t.FailNow()
			}
		}
	}
	t.Logf("%d frames compared, %d that BPF_PROG_TEST_RUN refuses", p.compared, p.refused)
}
