package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
)

var testVXLAN = VXLAN{
	VNI: 42, Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("192.0.2.2"),
	NextHop: net.HardwareAddr{2, 0, 0, 0, 0, 2}, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0x42},
}

func overlay(t testing.TB, p *lab.Pair, cfg *Config) (v *Overlay) {
	t.Helper()
	in(t, p, 0, func() (err error) { v, err = NewOverlay("vx0", p.Ifi[0], testVXLAN, cfg); return err })
	t.Cleanup(func() { v.Close() })
	return v
}

// A frame is classified on the overlay as itself and, encapsulated, on the
// underlay: also if the overlay's lower layer has run in between.
func TestOverlayIsClassifiedTwice(t *testing.T) {
	p := newLab(t)
	far := newTap(t, p, 1, p.Ifi[1])
	var log []string
	v := overlay(t, p, &Config{Firewall: note(&log, "own", judge(refuseEvil))})
	lowerHook(t, p, v.Interface(), func(f *Frame) (firewall.Verdict, string) { return firewall.Accept, "" })
	var outer *firewall.Rule
	hook(t, p, p.Ifi[0], judge(func(pkt *filter.Packet) firewall.Decision {
		log = append(log, "under@"+pkt.Meta().Iface)
		if !pkt.HasUDP || pkt.UDP().DstPort != 4789 || pkt.Malformed != 0 || pkt.Meta().IfaceMAC != [6]byte(p.Ifi[0].HardwareAddr) {
			t.Errorf("%s", pkt.Summary())
		}
		if outer != nil {
			return firewall.Decision{Outcome: firewall.Outcome{Reason: firewall.ReasonRule}, Rule: outer}
		}
		return accept(pkt)
	}))
	inner := frame(testVXLAN.HardwareAddr, "inner")
	if n, err := v.Write(inner); n != len(inner) || err != nil {
		t.Fatal(n, err)
	}
	_, err := v.Write(frame(testVXLAN.HardwareAddr, "evil"))
	if e := mustBlock(t, err); e.Interface != "vx0" || e.Rule != "no-evil" {
		t.Errorf("%+v", e)
	}
	outer = &firewall.Rule{Name: "no-tunnel"}
	_, err = v.Write(inner)
	if e := mustBlock(t, err); e.Interface != "near" || e.Rule != "no-tunnel" {
		t.Errorf("%+v", e)
	}
	if got := strings.Join(log, " "); got != "own@vx0:inner under@near own@vx0:evil own@vx0:inner under@near" {
		t.Error(got)
	}
	got := far.frames()
	if len(got) != 1 || got[0][encapLen:] != string(inner) {
		t.Fatalf("arrived: %q", got)
	}
	checkEncapsulation(t, []byte(got[0]), p.Ifi[0].HardwareAddr)
}

func checkEncapsulation(t *testing.T, b []byte, src net.HardwareAddr) {
	t.Helper()
	var pkt filter.Packet
	pkt.Decode(b, nil)
	be := binary.BigEndian
	if !bytes.Equal(b[:6], testVXLAN.NextHop) || !bytes.Equal(b[6:12], src) {
		t.Errorf("outer Ethernet header %x", b[:14])
	}
	if checksum(b[14:34]) != 0 || pkt.IPv4().Src != 0xc0000201 || pkt.IPv4().Dst != 0xc0000202 || int(pkt.IPv4().TotalLen) != len(b)-14 {
		t.Errorf("IPv4 %+v, checksum off by %#x", *pkt.IPv4(), checksum(b[14:34]))
	}
	if pkt.UDP().SrcPort < 49152 || int(pkt.UDP().Length) != len(b)-34 {
		t.Errorf("UDP %+v", *pkt.UDP())
	}
	if be.Uint32(b[42:]) != 0x08000000 || be.Uint32(b[46:]) != 42<<8 {
		t.Errorf("VXLAN header %x", b[42:50])
	}
}

// `forward` and `duplicate` find an overlay by its name.
func TestForwardToOverlay(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	far, tap := newTap(t, p, 1, p.Ifi[1]), newTap(t, p, 0, dev)
	overlay(t, p, &Config{Firewall: judge(refuseEvil)})
	c := connOn(t, p, dev, Raw, 0, &Config{Firewall: forwardTo("vx0")})
	if _, err := c.WriteTo(frame(dev.HardwareAddr, "x"), broadcast); err != nil {
		t.Error(err)
	}
	_, err := c.WriteTo(frame(dev.HardwareAddr, "evil"), broadcast)
	if e := mustBlock(t, err); e.Interface != "vx0" {
		t.Errorf("%+v", e)
	}
	if a, b := far.texts(), tap.texts(); a != "x" || b != "" {
		t.Errorf("far %q, sink %q", a, b)
	}
}

func TestOverlayErrors(t *testing.T) {
	p := newLab(t)
	v := overlay(t, p, nil)
	in(t, p, 0, func() error {
		bad := testVXLAN
		bad.VNI = 1 << 24
		for name, tt := range map[string]struct {
			vx   VXLAN
			ifi  *net.Interface
			want string
		}{
			"vx0": {testVXLAN, p.Ifi[0], "the name is taken"},
			"vx1": {bad, p.Ifi[0], "VNI below 2^24"},
			"vx2": {testVXLAN, &net.Interface{Index: 4711, Name: "eth9"}, "`ip link` lists them"},
			"vx3": {testVXLAN, nil, "no interface given"},
		} {
			if _, err := NewOverlay(name, tt.ifi, tt.vx, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
	if _, err := v.Write(make([]byte, 13)); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if _, err := v.Write(make([]byte, 1500)); !errors.Is(err, unix.EMSGSIZE) {
		t.Error(err)
	}
	if err := errors.Join(v.Close(), v.Close()); err != nil {
		t.Error(err)
	}
	if _, err := v.Write(make([]byte, 60)); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	in(t, p, 0, func() error {
		if _, err := Attach(v.Interface(), judge(accept)); err == nil {
			t.Error("attached to a closed overlay")
		}
		return nil
	})
	overlay(t, p, nil) // the name is free again
}

// The mark is the kernel's skb->mark: nftables reads it where the frame leaves.
func TestMark(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	nft(t, p, `table netdev t {
		chain c { type filter hook egress device sink priority 0;
			ether type 0x88b5 meta mark 7 counter
			ether type 0x88b5 meta mark 9 counter
			ether type 0x88b5 meta mark 0 counter
		}; }`)
	marked := judge(func(*filter.Packet) firewall.Decision {
		return firewall.Decision{Outcome: firewall.Outcome{Verdict: firewall.Accept, Reason: firewall.ReasonDefault}, Marking: firewall.Marking{Marked: true, Mark: 7}}
	})
	f := frame(dev.HardwareAddr, "x")
	h := hook(t, p, dev, marked)
	raw, dgram := connOn(t, p, dev, Raw, 0, nil), connOn(t, p, dev, Datagram, testType, nil)
	r := ring(t, p, dev, 32, nil)
	send := func() {
		t.Helper()
		_, err1 := raw.WriteTo(f, broadcast)
		_, err2 := dgram.WriteTo(f[14:], broadcast)
		_, err3 := raw.WriteBatch([]Message{{Bytes: f, Addr: broadcast}, {Bytes: f, Addr: broadcast}})
		_, err4 := r.Write(f)
		if err := errors.Join(err1, err2, err3, err4, r.Flush()); err != nil {
			t.Error(err)
		}
	}
	send()
	// The lower layer reads the mark and may change it.
	var seen uint32
	lowerHook(t, p, dev, func(f *Frame) (firewall.Verdict, string) {
		seen, f.Mark = f.Mark, 9
		return firewall.Accept, ""
	})
	send()
	if seen != 7 {
		t.Errorf("the lower layer saw mark %d", seen)
	}
	h.Detach()
	out := nftCounters(t, p)
	if out != "5 5 0" {
		t.Errorf("nft counted %q frames with marks 7, 9 and 0", out)
	}
}

func nftCounters(t *testing.T, p *lab.Pair) string {
	t.Helper()
	var n []string
	for _, m := range regexp.MustCompile(`packets (\d+)`).FindAllStringSubmatch(nft(t, p, "list ruleset"), -1) {
		n = append(n, m[1])
	}
	return strings.Join(n, " ")
}
