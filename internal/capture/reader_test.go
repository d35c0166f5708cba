package capture

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/binary"
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

// makePcap is a pcap with one record for each data; snap is what it claims as their length if not 0.
func makePcap(order binary.ByteOrder, magic uint32, link uint32, data ...string) []byte {
	append32 := func(b []byte, v ...uint32) []byte {
		for _, v := range v {
			b = append(b, 0, 0, 0, 0)
			order.PutUint32(b[len(b)-4:], v)
		}
		return b
	}
	b := append32(nil, magic)
	b = append(b, 0, 0, 0, 0)
	order.PutUint16(b[4:], 2)
	order.PutUint16(b[6:], 4)
	b = append32(b, 0, 0, 65535, link)
	for i, d := range data {
		b = append32(b, uint32(i+1), 500, uint32(len(d)), uint32(len(d)+i))
		b = append(b, d...)
	}
	return b
}

// block is a little-endian pcapng block.
func block(typ uint32, body string) string {
	body += strings.Repeat("\x00", -len(body)&3)
	b := binary.LittleEndian.AppendUint32(nil, typ)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return string(binary.LittleEndian.AppendUint32(b, uint32(len(body)+12)))
}

const (
	section = "\x4d\x3c\x2b\x1a\x01\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
	ether   = "\x01\x00\x00\x00\x00\x00\x00\x00"
	wlan    = "\x69\x00\x00\x00\x00\x00\x00\x00" + "\x02\x00\x05\x00wlan0\x00\x00\x00"
	packet  = "\x00\x00\x00\x00" + "\x00\x00\x00\x00\x0a\x00\x00\x00" + "\x04\x00\x00\x00\x05\x00\x00\x00" + "abcd"
)

// readAll gives what was read, and the error if it is not io.EOF.
func readAll(b []byte) (frames []Frame, skipped Skipped, err error) {
	r, err := NewReader("x.pcap", bytes.NewReader(b))
	if err != nil {
		return nil, Skipped{}, err
	}
	for {
		f, err := r.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return frames, r.Skipped(), err
		}
		c := *f
		c.Data = bytes.Clone(f.Data)
		frames = append(frames, c)
	}
}

func TestPcap(t *testing.T) {
	for _, tt := range []struct {
		name  string
		order binary.ByteOrder
		magic uint32
		unit  int64
	}{
		{"little, µs", binary.LittleEndian, magicMicro, 1000},
		{"little, ns", binary.LittleEndian, magicNano, 1},
		{"big, µs", binary.BigEndian, magicMicro, 1000},
		{"big, ns", binary.BigEndian, magicNano, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frames, _, err := readAll(makePcap(tt.order, tt.magic, linkEthernet, "one", "three"))
			if err != nil || len(frames) != 2 {
				t.Fatalf("%d frames, %v", len(frames), err)
			}
			f := frames[1]
			if f.Number != 2 || string(f.Data) != "three" || f.WireLen != 6 || f.Time != 2e9+500*tt.unit {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestPcapng(t *testing.T) {
	two := block(blockSection, section) + block(blockInterface, ether) + block(blockEnhanced, packet)
	for _, tt := range []struct {
		name, file string
		times      []int64
	}{
		{"enhanced", two, []int64{10_000}},
		{"unknown block", block(blockSection, section) + block(99, strings.Repeat("x", 2*maxBlock)) + two[28:], []int64{10_000}},
		{"obsolete packet block", strings.Replace(two, "\x06\x00\x00\x00\x30", "\x02\x00\x00\x00\x30", 1), []int64{10_000}},
		{"ns", strings.Replace(two, block(blockInterface, ether), block(blockInterface, ether+"\x09\x00\x01\x00\x09\x00\x00\x00"), 1), []int64{10}},
		{"power of 2, offset", strings.Replace(two, block(blockInterface, ether), block(blockInterface, ether+
			"\x09\x00\x01\x00\x81\x00\x00\x00"+"\x0e\x00\x08\x00\x02\x00\x00\x00\x00\x00\x00\x00"), 1), []int64{7e9}},
		{"simple has the time before", two + block(blockSimple, "\x04\x00\x00\x00abcd"), []int64{10_000, 10_000}},
		{"a section more", two + two, []int64{10_000, 10_000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frames, _, err := readAll([]byte(tt.file))
			if err != nil || len(frames) != len(tt.times) {
				t.Fatalf("%d frames, %v", len(frames), err)
			}
			for i, f := range frames {
				if f.Number != i+1 || f.Time != tt.times[i] || string(f.Data) != "abcd" {
					t.Errorf("%+v, want time %d", f, tt.times[i])
				}
			}
		})
	}
}

// TestCustomBlocks are numbered, for Wireshark numbers them.
func TestCustomBlocks(t *testing.T) {
	file := block(blockSection, section) + block(blockCustom, "abcd") + block(blockInterface, ether) +
		block(blockCustomKeep, strings.Repeat("x", 2*maxBlock)) + block(blockEnhanced, packet)
	frames, _, err := readAll([]byte(file))
	if err != nil || len(frames) != 1 || frames[0].Number != 3 {
		t.Errorf("%+v, %v", frames, err)
	}
}

func TestGzip(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(makePcap(binary.LittleEndian, magicMicro, linkEthernet, "one", "two"))
	w.Close()
	frames, _, err := readAll(z.Bytes())
	if err != nil || len(frames) != 2 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	var e *Error
	if frames, _, err = readAll(z.Bytes()[:z.Len()-6]); len(frames) != 2 || !errors.As(err, &e) || e.Frame != 3 {
		t.Errorf("truncated: %d frames, %v", len(frames), err)
	}
}

func TestMixedLinkTypes(t *testing.T) {
	file := block(blockSection, section) + block(blockInterface, wlan) + block(blockInterface, ether)
	other := block(blockEnhanced, packet)
	ours := block(blockEnhanced, "\x01"+packet[1:])
	frames, skipped, err := readAll([]byte(file + other + ours + other))
	if err != nil || len(frames) != 1 || frames[0].Number != 2 {
		t.Errorf("%+v, %v", frames, err)
	}
	if want := (Skipped{2, 1, "link type 105 (IEEE802_11) on wlan0"}); skipped != want {
		t.Errorf("%+v", skipped)
	}
	if _, _, err = readAll([]byte(file + other)); err == nil || !strings.Contains(err.Error(), "no frame of it is Ethernet") {
		t.Errorf("no Ethernet at all: %v", err)
	}
}

// TestDamaged holds what is said of damaged files, and that the frames before
// the damage are there.
func TestDamaged(t *testing.T) {
	good := makePcap(binary.LittleEndian, magicMicro, linkEthernet, "one", "two")
	ng := block(blockSection, section) + block(blockInterface, ether) + block(blockEnhanced, packet)
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint32(long[24+19+8:], 0xfffffff0)
	for _, tt := range []struct {
		name   string
		file   string
		frames int
		want   string
	}{
		{"empty", "", 0, "x.pcap: the file is empty"},
		{"binary", "\x7fELF\x02\x01", 0, "x.pcap: neither pcap nor pcapng: it begins with 7f 45 4c 46; save it as pcap"},
		{"three bytes", "\xd4\xc3\xb2", 0, "x.pcap: too short to be a capture"},
		{"header cut", string(good[:20]), 0, "x.pcap: cut short: the header has 20 of 24 bytes"},
		{"record header cut", string(good[:24+19+5]), 1, "x.pcap: frame 2: cut short: its header has 5 of 16 bytes"},
		{"frame cut", string(good[:len(good)-1]), 1, "x.pcap: frame 2: cut short: it has 18 of 19 bytes; the frames before it are sound"},
		{"length of gigabytes", string(long), 1, "x.pcap: frame 2: its length is said to be 4294967280 bytes, more than 262144"},
		{"version", strings.Replace(string(good), "\x02\x00\x04", "\x02\x00\x02", 1), 0, "x.pcap: pcap version 2.2, not 2.4"},
		{"Linux cooked", string(makePcap(binary.BigEndian, magicNano, 113)), 0, "x.pcap: not Ethernet, but link type 113 (LINUX_SLL); capture on an Ethernet interface"},
		{"gzip header", "\x1f\x8b\xff", 0, "x.pcap: the gzip header is damaged"},
		{"pcapng version", strings.Replace(ng, "\x01\x00\x00\x00\xff", "\x02\x00\x00\x00\xff", 1), 0, "x.pcap: frame 1: pcapng version 2.0, not 1.0"},
		{"byte order", strings.Replace(ng, "\x4d\x3c", "\x00\x3c", 1), 0, "x.pcap: frame 1: a section header without a byte order"},
		{"block cut", ng + ng[:8], 1, "x.pcap: frame 2: cut short: the next block has 8 of 12 bytes"},
		{"two lengths", ng[:len(ng)-4] + "\x34\x00\x00\x00", 0, "x.pcap: frame 1: a block's two lengths differ"},
		{"block of gigabytes", ng + "\x06\x00\x00\x00\xfc\xff\xff\xff\x00\x00\x00\x00", 1, "x.pcap: frame 2: a block's length is said to be 4294967292 bytes"},
		{"unknown block of gigabytes", ng + "\x63\x00\x00\x00\xfc\xff\xff\xff\x00\x00\x00\x00", 1, "x.pcap: frame 2: cut short: a block before it has 12 of 4294967292 bytes"},
		{"block of 4 bytes", ng + "\x06\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00", 1, "x.pcap: frame 2: a block's length is said to be 4 bytes"},
		{"longer than its block", strings.Replace(ng, "\x04\x00\x00\x00\x05", "\x05\x00\x00\x00\x05", 1), 0, "x.pcap: frame 1: its length is said to be 5 bytes, in a block that has 4"},
		{"no such interface", strings.Replace(ng, packet, "\x07"+packet[1:], 1), 0, "x.pcap: frame 1: interface 7, of 1 that are described"},
		{"resolution", block(blockSection, section) + block(blockInterface, ether+"\x09\x00\x01\x00\x40\x00\x00\x00"), 0, "x.pcap: frame 1: an interface's time resolution is said to be 0x40"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			frames, _, err := readAll([]byte(tt.file))
			var e *Error
			if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), tt.want) || len(frames) != tt.frames {
				t.Errorf("%d frames, %v", len(frames), err)
			}
		})
	}
}

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	want := []Frame{{1, 5, 90, "", []byte("frame")}, {2, 6, 3, "eth0", []byte("two")}}
	for _, f := range want {
		if err := w.Write(&f, "dropped by "+string(f.Data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	frames, _, err := readAll(out.Bytes())
	if err != nil || len(frames) != 2 {
		t.Fatalf("%d frames, %v", len(frames), err)
	}
	for i, f := range frames {
		if f.Number != want[i].Number || f.Time != want[i].Time || f.WireLen != want[i].WireLen || f.Iface != want[i].Iface || !bytes.Equal(f.Data, want[i].Data) {
			t.Errorf("%+v, want %+v", f, want[i])
		}
	}
	r, err := pcapgo.NewNgReader(&out, pcapgo.NgReaderOptions{WantMixedLinkType: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, opts, err := r.ReadPacketDataWithOptions(); err != nil || len(opts.Comments) != 1 || opts.Comments[0] != "dropped by frame" {
		t.Errorf("comments %q, %v", opts.Comments, err)
	}
}

func TestNextAllocates(t *testing.T) {
	r, err := NewReader("x", io.MultiReader(bytes.NewReader(makePcap(binary.LittleEndian, magicMicro, linkEthernet)),
		repeat(makePcap(binary.LittleEndian, magicMicro, linkEthernet, strings.Repeat("x", 60))[pcapHeaderLen:])))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// repeat reads the same bytes for ever.
type repeat []byte

func (r repeat) Read(b []byte) (int, error) {
	return copy(b, r[:min(len(r), len(b)/len(r)*len(r))]), nil
}

// TestCorpus reads every capture as pcapgo does.
func TestCorpus(t *testing.T) {
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "corpus", "captures.tar.gz"))
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("needs the corpus")
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files, refused := 0, 0
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(h.Name, ".pcap") {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files++
		if _, _, err := readAll(b); err != nil {
			refused++
			t.Logf("%s: %v", h.Name, err)
		}
		compare(t, h.Name, b)
	}
	if files < 400 || refused > 4 {
		t.Errorf("%d captures, %d refused", files, refused)
	}
}

// compare holds the frames against pcapgo's, as far as it comes.
func compare(t *testing.T, name string, b []byte) {
	ours, _, err := readAll(b)
	var next gopacket.PacketDataSource
	if strings.HasPrefix(string(b), "\x0a\x0d\x0d\x0a") {
		ng, ngErr := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: false})
		if ngErr != nil {
			return
		}
		next = ng
	} else {
		p, pErr := pcapgo.NewReader(bytes.NewReader(b))
		if pErr != nil || p.LinkType() != layers.LinkTypeEthernet {
			return
		}
		next = p
	}
	for i := 0; ; {
		data, ci, theirErr := next.ReadPacketData()
		if theirErr != nil {
			if (theirErr == io.EOF) != (err == nil) && err == nil {
				t.Errorf("%s: read here, there %v", name, theirErr)
			}
			if i != len(ours) {
				t.Errorf("%s: %d frames, there %d and %v", name, len(ours), i, theirErr)
			}
			return
		}
		if len(ci.AncillaryData) > 0 && ci.AncillaryData[0] != layers.LinkTypeEthernet {
			continue
		}
		if i == len(ours) {
			t.Errorf("%s: %d frames, there are more; %v", name, i, err)
			return
		}
		f := ours[i]
		i++
		if !bytes.Equal(f.Data, data) || f.WireLen != max(ci.Length, len(data)) ||
			!ci.Timestamp.IsZero() && !sameTime(f.Time, ci.Timestamp) {
			t.Errorf("%s: frame %d differs: %+v, %+v", name, f.Number, f, ci)
			return
		}
	}
}

// sameTime allows for what pcapgo makes of nonsense: it multiplies microseconds
// in 32 bits, and we cannot tell the years after 2262.
func sameTime(ours int64, theirs time.Time) bool {
	return theirs.Year() > 2261 || ours == max(1, theirs.UnixNano()) || (ours-theirs.UnixNano())%(1<<32) == 0
}

// FuzzReader: no input panics, and no frame is longer than its file.
func FuzzReader(f *testing.F) {
	f.Add(makePcap(binary.BigEndian, magicNano, linkEthernet, "one", "two"))
	f.Add([]byte(block(blockSection, section) + block(blockInterface, wlan) + block(blockInterface, ether) + block(blockEnhanced, packet) + block(blockSimple, "\x04\x00\x00\x00abcd")))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, _, _ := readAll(b)
		if len(b) > 2 && b[0] == 0x1f {
			return // gzip may unfold
		}
		for i, fr := range frames {
			if len(fr.Data) > len(b) || fr.WireLen < len(fr.Data) || fr.Time < 1 || i > 0 && fr.Number <= frames[i-1].Number {
				t.Errorf("%+v", fr)
			}
		}
	})
}
