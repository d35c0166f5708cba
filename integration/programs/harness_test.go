//go:build linux

package programs

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

const near, far = labtest.Near, labtest.Far

// guarded opens a socket on the near end whose frames pass the policy.
func guarded(t testing.TB, p *lab.Pair, typ afpacket.Type, protocol int, policy string) (c *afpacket.Conn) {
	t.Helper()
	parsed, _, err := firewall.Parse("policy.yaml", []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	fw, err := firewall.New(parsed)
	if err != nil {
		t.Fatal(err)
	}
	labtest.In(t, p, near, func() (err error) {
		c, err = afpacket.Listen(p.Ifi[near], typ, protocol, &afpacket.Config{Firewall: fw})
		return err
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// bare opens a socket on the near end that nobody guards.
func bare(t testing.TB, p *lab.Pair, typ packet.Type, protocol int) *packet.Conn {
	t.Helper()
	return bareAt(t, p, near, typ, protocol)
}

func bareAt(t testing.TB, p *lab.Pair, i int, typ packet.Type, protocol int) (c *packet.Conn) {
	t.Helper()
	labtest.In(t, p, i, func() (err error) { c, err = packet.Listen(p.Ifi[i], typ, protocol, nil); return err })
	t.Cleanup(func() { c.Close() })
	return c
}

// mustBlock checks that err is a refusal by rule, as a caller may find it out.
func mustBlock(t testing.TB, err error, rule string) {
	t.Helper()
	var blocked *afpacket.BlockedError
	switch {
	case !errors.As(err, &blocked):
		t.Errorf("%v (%T) is no refusal", err, err)
	case !errors.Is(err, unix.ENOBUFS):
		t.Errorf("%v is not ENOBUFS", err)
	case blocked.Rule != rule || !strings.Contains(err.Error(), rule) || blocked.Interface != "near" ||
		blocked.Sender.PID != uint32(os.Getpid()):
		t.Errorf("%+v does not name rule %s, interface and sender", blocked.Event, rule)
	}
}

// next is how the next answer went.
func next(t testing.TB, answers <-chan error) error {
	t.Helper()
	select {
	case err := <-answers:
		return err
	case <-time.After(labtest.Patience):
		t.Fatalf("nothing was asked for %v", labtest.Patience)
		return nil
	}
}

// tap sees every frame of the far end, those that it sends as well.
type tap struct{ c *packet.Conn }

func newTap(t testing.TB, p *lab.Pair) *tap {
	t.Helper()
	return &tap{bareAt(t, p, far, packet.Raw, unix.ETH_P_ALL)}
}

// count is how many frames that match came by since the last call, until it is
// quiet.
func (s *tap) count(t testing.TB, match string) (n int) {
	t.Helper()
	expr, err := filter.Parse(match, nil)
	if err != nil {
		t.Fatal(err)
	}
	var p filter.Packet
	for b := make([]byte, 2048); ; {
		if err := s.c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		size, _, err := s.c.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Decode(b[:size], nil)
		if filter.Eval(expr, &p, nil) {
			n++
		}
	}
}
