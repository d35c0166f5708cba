package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
)

// judge is a classifier written down in a test.
type judge func(p *filter.Packet) firewall.Decision

func (j judge) Classify(p *filter.Packet) firewall.Decision { return j(p) }

func accept(*filter.Packet) firewall.Decision {
	return firewall.Decision{Outcome: firewall.Outcome{Verdict: firewall.Accept, Reason: firewall.ReasonDefault}}
}

var noEvil = &firewall.Rule{Name: "no-evil", Action: firewall.ActionDrop}

// refuseEvil drops the frames that say evil.
func refuseEvil(p *filter.Packet) firewall.Decision {
	if bytes.Contains(p.Bytes(filter.LayerFrame), []byte("evil")) {
		return firewall.Decision{Outcome: firewall.Outcome{Verdict: firewall.Drop, Reason: firewall.ReasonRule}, Rule: noEvil}
	}
	return accept(p)
}

func forwardTo(iface string) judge {
	r := &firewall.Rule{Name: "away", Action: firewall.ActionForward, Iface: iface}
	return func(*filter.Packet) firewall.Decision {
		return firewall.Decision{Outcome: firewall.Outcome{Verdict: firewall.Forward, Reason: firewall.ReasonRule}, Rule: r}
	}
}

// cannot skips on a laptop and fails in CI.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func newLab(t testing.TB) *lab.Pair {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root for network namespaces")
	}
	p, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// in runs fn in namespace i.
func in(t testing.TB, p *lab.Pair, i int, fn func() error) {
	t.Helper()
	if err := p.Do(i, fn); err != nil {
		t.Fatal(err)
	}
}

// conn opens a guarded socket on the near interface.
func conn(t testing.TB, p *lab.Pair, typ Type, protocol int, cfg *Config) *Conn {
	t.Helper()
	return connOn(t, p, p.Ifi[0], typ, protocol, cfg)
}

func connOn(t testing.TB, p *lab.Pair, ifi *net.Interface, typ Type, protocol int, cfg *Config) (c *Conn) {
	t.Helper()
	in(t, p, 0, func() (err error) { c, err = Listen(ifi, typ, protocol, cfg); return err })
	t.Cleanup(func() { c.Close() })
	return c
}

// sink makes a device in the near namespace that swallows what is sent on it.
func sink(t testing.TB, p *lab.Pair, name string) *net.Interface {
	t.Helper()
	ifi, err := p.Sink(0, name)
	if err != nil {
		t.Fatal(err)
	}
	return ifi
}

// hook attaches to an interface of the near namespace until the test ends.
func hook(t testing.TB, p *lab.Pair, ifi *net.Interface, c Classifier) (h *Hook) {
	t.Helper()
	in(t, p, 0, func() (err error) { h, err = Attach(ifi, c); return err })
	t.Cleanup(h.Detach)
	return h
}

func lowerHook(t testing.TB, p *lab.Pair, ifi *net.Interface, l Lower) {
	t.Helper()
	var h *Hook
	in(t, p, 0, func() (err error) { h, err = AttachLower(ifi, l); return err })
	t.Cleanup(h.Detach)
}

// tap sees what leaves through (or comes in at) an interface.
type tap struct {
	t testing.TB
	c *packet.Conn
}

func newTap(t testing.TB, p *lab.Pair, i int, ifi *net.Interface) *tap {
	t.Helper()
	var c *packet.Conn
	in(t, p, i, func() (err error) { c, err = packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil); return err })
	t.Cleanup(func() { c.Close() })
	return &tap{t, c}
}

// frames are the test's own frames that came by, until it is quiet.
func (s *tap) frames() (out []string) {
	s.t.Helper()
	b := make([]byte, 2048)
	for {
		if err := s.c.SetReadDeadline(time.Now().Add(60 * time.Millisecond)); err != nil {
			s.t.Fatal(err)
		}
		n, _, err := s.c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if n > 14 && bytes.Contains(b[:n], []byte("test:")) {
			out = append(out, string(b[:n]))
		}
	}
}

// texts are what follows "test:" in the frames that came by, up to a full stop.
func (s *tap) texts() string {
	s.t.Helper()
	var out []string
	for _, f := range s.frames() {
		_, f, _ = strings.Cut(f, "test:")
		f, _, _ = strings.Cut(f, ".")
		out = append(out, f)
	}
	return strings.Join(out, " ")
}

const testType = 0x88b5 // local experimental (IEEE 802)

// frame is a 60-byte test frame.
func frame(src net.HardwareAddr, text string) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, src...)
	b = binary.BigEndian.AppendUint16(b, testType)
	b = append(b, "test:"+text+"."...)
	return append(b, make([]byte, max(0, 60-len(b)))...)
}

var broadcast = &Addr{HardwareAddr: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}

func mustBlock(t testing.TB, err error) *BlockedError {
	t.Helper()
	var op *net.OpError
	var blocked *BlockedError
	if !errors.As(err, &op) || !errors.As(err, &blocked) || !errors.Is(err, unix.ENOBUFS) {
		t.Fatalf("%v (%T) is no refusal", err, err)
	}
	return blocked
}
