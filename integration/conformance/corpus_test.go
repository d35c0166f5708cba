package conformance

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// captured is one frame of a capture.
type captured struct {
	file   string
	number int // from 1, within the file
	bytes  []byte
	wire   int // its length on the wire
}

// need skips the test on a machine that lacks something, and fails it in CI.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// readCorpus reads every frame of every capture.
func readCorpus(t testing.TB) (frames []captured) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "corpus", "captures.tar.gz"))
	need(t, err == nil, "the corpus")
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && strings.Contains(h.Name, ".pcap") {
			files++
			frames = append(frames, readCapture(t, filepath.Base(h.Name), archive)...)
		}
	}
	t.Logf("%d frames in %d captures", len(frames), files)
	return frames
}

// readCapture reads a pcap or pcapng as far as it is sound.
func readCapture(t testing.TB, name string, r io.Reader) (frames []captured) {
	t.Helper()
	var src interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
		LinkType() layers.LinkType
	}
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	if err == nil && bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		src, err = pcapgo.NewNgReader(b, pcapgo.DefaultNgReaderOptions)
	} else if err == nil {
		src, err = pcapgo.NewReader(b)
	}
	if err != nil {
		t.Logf("%s is not read: %v", name, err)
		return nil
	}
	if src.LinkType() != layers.LinkTypeEthernet {
		t.Logf("%s is not read: its link type is %v", name, src.LinkType())
		return nil
	}
	for {
		data, info, err := src.ReadPacketData()
		if err != nil {
			return frames
		}
		frames = append(frames, captured{name, len(frames) + 1, data, info.Length})
	}
}

// writeCapture writes frames as one pcap, a second apart, so that nothing in
// one capture looks to tshark like the continuation of another.
func writeCapture(t testing.TB, name string, frames []captured) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := bufio.NewWriter(f)
	w := pcapgo.NewWriter(b)
	if err := w.WriteFileHeader(262144, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, c := range frames {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(c.bytes), Length: c.wire}
		if err := w.WritePacket(info, c.bytes); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
}
