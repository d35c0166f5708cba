package filter

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// captured is one frame of a capture.
type captured struct {
	from  string // the capture and the frame's number in it
	bytes []byte
	wire  int // bytes on the wire
}

// need skips the test on a machine that lacks something, and fails in CI.
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

// corpus reads every Ethernet frame of the captures.
func corpus(t testing.TB) (frames []captured) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "..", "shared", "corpus", "captures.tar.gz"))
	need(t, err == nil, "the corpus")
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(z); ; {
		h, err := archive.Next()
		if err == io.EOF {
			return frames
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && strings.Contains(h.Name, ".pcap") {
			frames = append(frames, readCapture(t, filepath.Base(h.Name), archive)...)
		}
	}
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
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		src, err = pcapgo.NewNgReader(b, pcapgo.DefaultNgReaderOptions)
	} else {
		src, err = pcapgo.NewReader(b)
	}
	if err != nil {
		t.Logf("%s: %v", name, err)
		return nil
	}
	for {
		data, info, err := src.ReadPacketData()
		if err != nil {
			return frames
		}
		if src.LinkType() == layers.LinkTypeEthernet {
			frames = append(frames, captured{fmt.Sprintf("%s#%d", name, len(frames)+1), data, info.Length})
		}
	}
}

// tunnels are the protocols that carry frames or packets which are not the
// outermost.
var tunnels = strings.Fields("icmp icmpv6 vxlan geneve gre gtp gtpprime l2tp mpls pwethheuristic pwethcw pwethnocw pppoes pbb capwap.data " +
	"teredo erspan mipv6 ipcomp ieee8021ah nsh ayiya lisp-data wlccp etherip eoip macsec vntag fabricpath trill brcm_tag dsa batadv olsr hip " +
	"vxlan_gpe gue openvpn wg esp ppp tzsp sflow cfp cmd")

// runTshark reads the frames by tshark, with the arguments that say how to print.
func runTshark(t testing.TB, frames []captured, how ...string) string {
	t.Helper()
	_, err := exec.LookPath("tshark")
	need(t, err == nil, "tshark")
	name := filepath.Join(t.TempDir(), "all.pcap")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	buffered := bufio.NewWriter(f)
	w := pcapgo.NewWriter(buffered)
	if err := w.WriteFileHeader(262144, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, c := range frames {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(c.bytes), Length: c.wire}
		if err := w.WritePacket(info, c.bytes); err != nil {
			t.Fatal(err)
		}
	}
	if err := buffered.Flush(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	args := append([]string{"-n", "-r", name, "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"}, how...)
	for _, p := range tunnels {
		args = append(args, "--disable-protocol", p)
	}
	var stderr strings.Builder
	cmd := exec.Command("tshark", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	return string(out)
}

// tshark gives the named fields of every frame: every occurrence, as text.
func tshark(t testing.TB, frames []captured, fields []string) [][][]string {
	t.Helper()
	how := []string{"-T", "fields", "-E", "occurrence=a", "-E", "aggregator=\x1f", "-E", "separator=\x1e"}
	for _, f := range fields {
		how = append(how, "-e", f)
	}
	lines := strings.Split(strings.TrimSuffix(runTshark(t, frames, how...), "\n"), "\n")
	if len(lines) != len(frames) {
		t.Fatalf("tshark gives %d lines for %d frames", len(lines), len(frames))
	}
	all := make([][][]string, len(lines))
	for i, line := range lines {
		all[i] = make([][]string, len(fields))
		for n, column := range strings.Split(line, "\x1e") {
			if column != "" {
				all[i][n] = strings.Split(column, "\x1f")
			}
		}
	}
	return all
}

// canonical brings tshark's text of a value to the form ours gives.
func canonical(typ Type, s string) (string, error) {
	switch typ {
	case TypeUint, TypeBool:
		n, err := strconv.ParseUint(s, 0, 64)
		return strconv.FormatUint(n, 10), err
	case TypeMAC:
		mac, err := net.ParseMAC(s)
		return strconv.FormatUint(wireNumber(mac), 10), err
	case TypeIPv4:
		a, err := netip.ParseAddr(s)
		return strconv.FormatUint(wireNumber(a.AsSlice()), 10), err
	case TypeIPv6:
		a, err := netip.ParseAddr(s)
		return hex.EncodeToString(a.AsSlice()), err
	case TypeBytes:
		return strings.Replace(s, "<MISSING>", "", 1), nil
	case TypeProtocol:
		return "", nil
	}
	return s, nil
}

func occurrences(f *Field, p *Packet) (all []string) {
	for i := 0; ; i++ {
		v, ok := f.Value(p, i)
		switch {
		case !ok:
			return all
		case f.Type.Numeric():
			all = append(all, strconv.FormatUint(v.Num, 10))
		case f.Type == TypeProtocol:
			all = append(all, "")
		case f.Type == TypeString:
			if len(v.Bytes) > 0 { // tshark prints nothing for an empty text
				all = append(all, string(v.Bytes))
			}
		default:
			all = append(all, hex.EncodeToString(v.Bytes))
		}
	}
}

// sameValues compares what two sides say of a field, in any order.
func sameValues(f *Field, ours, theirs []string) bool {
	slices.Sort(ours)
	slices.Sort(theirs)
	if f.Name == "dhcp.option.type" { // one 0 stands for all
		ours, theirs = slices.Compact(ours), slices.Compact(theirs)
	}
	return slices.Equal(ours, theirs)
}

// TestFieldsAgreeWithWireshark holds every field of the catalogue against
// tshark, on the captures and on what the captures lack.
func TestFieldsAgreeWithWireshark(t *testing.T) {
	var fields []*Field
	var names []string
	for _, f := range Fields() {
		if !ours(f.Name) {
			fields, names = append(fields, f), append(names, f.Name)
		}
	}
	frames := append(corpus(t), oddFrames()...)
	excused := map[string]int{}
	wrong := 0
	var p Packet
	for i, row := range tshark(t, frames, names) {
		p.Decode(frames[i].bytes, &Meta{WireLen: frames[i].wire})
		for n, f := range fields {
			theirs := row[n]
			for k := range theirs {
				s, err := canonical(f.Type, theirs[k])
				if err != nil {
					t.Fatalf("%s: %s: %v", frames[i].from, f.Name, err)
				}
				theirs[k] = s
			}
			got := occurrences(f, &p)
			if sameValues(f, got, theirs) {
				continue
			}
			if e := excuse(f, &p, got, theirs); e != "" {
				excused[e]++
			} else if wrong++; wrong <= 60 {
				t.Errorf("%s: %s is %q here, %q there", frames[i].from, f.Name, got, theirs)
			}
		}
	}
	t.Logf("%d frames, %d fields, %d wrong; excused: %v", len(frames), len(fields), wrong, excused)
}

// ours tells the fields that Wireshark does not have.
func ours(name string) bool {
	return strings.HasPrefix(name, "sender.") || strings.HasPrefix(name, "iface.") || strings.HasSuffix(name, ".malformed")
}

// TestLayersAgreeWithWireshark compares where each layer begins and ends, for that
// is what a slice of a protocol counts from: udp[4:2].
func TestLayersAgreeWithWireshark(t *testing.T) {
	var frames []captured
	for i, c := range corpus(t) {
		if i%20 == 0 {
			frames = append(frames, c)
		}
	}
	for _, b := range slices.Concat(oddLinks(), oddPackets(), oddDHCP()) {
		frames = append(frames, captured{fmt.Sprintf("odd: %x", b[12:min(len(b), 80)]), b, len(b)})
	}
	place := regexp.MustCompile(`<proto name="(\w+)"[^>]* size="(\d+)" pos="(\d+)"`)
	packets := strings.Split(runTshark(t, frames, "-T", "pdml"), "<packet>")[1:]
	if len(packets) != len(frames) {
		t.Fatalf("tshark gives %d packets for %d frames", len(packets), len(frames))
	}
	var p Packet
	compared := 0
	for i, packet := range packets {
		p.Decode(frames[i].bytes, &Meta{WireLen: frames[i].wire})
		seen := map[string]bool{}
		for _, m := range place.FindAllStringSubmatch(packet, -1) {
			f := Lookup(m[1])
			if f == nil || seen[m[1]] {
				continue
			}
			seen[m[1]] = true
			b := p.Bytes(f.At[0].Layer)
			pos := strconv.Itoa(int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(frames[i].bytes)))))
			if size := strconv.Itoa(len(b)); size != m[2] || pos != m[3] && f.Name != "frame" {
				if p.Malformed == 0 && excuse(f, &p, []string{""}, []string{""}) == "" {
					t.Errorf("%s: %s is %s bytes at %s here, %s at %s there", frames[i].from, f.Name, size, pos, m[2], m[3])
				}
			}
			compared++
		}
	}
	t.Logf("%d layers of %d frames", compared, len(frames))
}
