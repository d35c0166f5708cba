package bpf

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
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

var limitUnit = regexp.MustCompile(`rate: (\d+)/[smh]\b`)

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

// TestCorpus: every frame of the corpus under the example policies, and under some drawn
// at random.
func TestCorpus(t *testing.T) {
	frames := corpus(t)
	files, _ := filepath.Glob("../../examples/*.yaml")
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			pin(t)
			src, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			// The engines look at the clock one after the other: in a day hardly any limit refills in between.
			src = limitUnit.ReplaceAll(src, []byte("rate: $1/d"))
			both(t, string(src), Options{}).agreeAll(frames)
		})
	}
	kinds := samples(frames)
	for n := range uint64(8) {
		t.Run(fmt.Sprint("drawn ", n), func(t *testing.T) {
			pin(t)
			m := newMaker(100, n, kinds, uint32(os.Getpid()))
			var s tally
			if p, _ := s.load(t, m, Options{AllSenders: true, linear: []int{0, -1}[n%2]}); p != nil {
				p.change(m)
				p.agreeAll(frames)
			}
		})
	}
}

// agreeAll compares the engines on all frames.
func (p *pair) agreeAll(frames [][]byte) {
	p.t.Helper()
	rules := 0
	for _, f := range frames {
		before := p.compared
		if !p.agree("corpus", f, 0) {
			p.t.FailNow()
		}
		if p.compared > before && p.last.Rule != nil {
			rules++
		}
	}
	p.sameCounters()
	p.t.Logf("%d frames compared, %d of them decided by a rule", p.compared, rules)
}
