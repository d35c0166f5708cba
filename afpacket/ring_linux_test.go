package afpacket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/integration/lab"
)

func ring(t testing.TB, p *lab.Pair, ifi *net.Interface, slots int, cfg *Config) (r *Ring) {
	t.Helper()
	in(t, p, 0, func() (err error) { r, err = OpenRing(ifi, slots, cfg); return err })
	t.Cleanup(func() { r.Close() })
	return r
}

func TestRing(t *testing.T) {
	p := newLab(t)
	for _, bypass := range []bool{false, true} {
		far := newTap(t, p, 1, p.Ifi[1])
		r := ring(t, p, p.Ifi[0], 32, &Config{Firewall: judge(refuseEvil), Bypass: bypass})
		var want []string
		for i := range 3*r.n + 1 { // the ring goes round
			text := fmt.Sprint(i)
			if i%5 == 2 {
				_, err := r.Write(frame(p.Ifi[0].HardwareAddr, "evil"))
				mustBlock(t, err)
				continue
			}
			want = append(want, text)
			b := frame(p.Ifi[0].HardwareAddr, text)
			if n, err := r.Write(b); n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			clear(b) // the ring has its own copy
		}
		if err := r.Flush(); err != nil {
			t.Error(err)
		}
		if got := far.texts(); got != strings.Join(want, " ") {
			t.Errorf("bypass %t, arrived: %s", bypass, got)
		}
	}
}

// The kernel stumbles over a frame of its own choosing; those behind it must
// not wait for ever, and the right one is missing.
func TestRingKernelRefuses(t *testing.T) {
	p := newLab(t)
	nft(t, p, "table netdev t { chain c { type filter hook egress device near priority 0; ether type 0x88b6 drop; }; }")
	for _, bypass := range []bool{false, true} {
		far := newTap(t, p, 1, p.Ifi[1])
		r := ring(t, p, p.Ifi[0], 32, &Config{Bypass: bypass})
		var want []string
		for i := range r.n {
			b := frame(p.Ifi[0].HardwareAddr, fmt.Sprint(i))
			switch {
			case i%10 == 3:
				b[13] = 0xb6 // refused by the kernel's hook
			case i%10 == 5:
				b = append(b, make([]byte, 1515-60)...) // fits the slot, not the MTU
			default:
				want = append(want, fmt.Sprint(i))
			}
			if _, err := r.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		err := r.Flush()
		if err == nil || !errors.Is(err, unix.ENOBUFS) || !strings.Contains(err.Error(), fmt.Sprintf("%d queued frames", r.n-len(want))) {
			t.Errorf("bypass %t: %v, want %d refused", bypass, err, r.n-len(want))
		}
		if got := far.texts(); got != strings.Join(want, " ") {
			t.Errorf("bypass %t, arrived: %s", bypass, got)
		}
		if err := r.Flush(); err != nil {
			t.Errorf("told twice: %v", err)
		}
	}
}

func TestRingForward(t *testing.T) {
	p := newLab(t)
	a := sink(t, p, "a")
	far, tapA := newTap(t, p, 1, p.Ifi[1]), newTap(t, p, 0, a)
	r := ring(t, p, p.Ifi[0], 32, nil)
	send := func(text string) {
		t.Helper()
		if _, err := r.Write(frame(p.Ifi[0].HardwareAddr, text)); err != nil {
			t.Error(err)
		}
	}
	send("1")
	h := hook(t, p, p.Ifi[0], forwardTo("a"))
	send("2")
	h.Detach()
	send("3")
	if err := r.Flush(); err != nil {
		t.Error(err)
	}
	if a, b := far.texts(), tapA.texts(); a != "1 3" || b != "2" {
		t.Errorf("far %q, a %q", a, b)
	}
	// A marked frame does not use the ring, and does not overtake it.
	hook(t, p, p.Ifi[0], judge(func(pkt *filter.Packet) firewall.Decision {
		d := accept(pkt)
		d.Mark, d.Marked = 7, strings.Contains(string(pkt.Bytes(filter.LayerFrame)), "marked")
		return d
	}))
	send("4")
	send("marked")
	send("5")
	if err := r.Flush(); err != nil {
		t.Error(err)
	}
	if got := far.texts(); got != "4 marked 5" {
		t.Errorf("far %q", got)
	}
}

func TestRingErrors(t *testing.T) {
	p := newLab(t)
	r := ring(t, p, p.Ifi[0], 0, nil)
	if _, err := r.Write(make([]byte, 13)); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
	if _, err := r.Write(make([]byte, 4000)); !errors.Is(err, unix.EMSGSIZE) {
		t.Error(err)
	}
	in(t, p, 0, func() error {
		if _, err := OpenRing(p.Ifi[0], -1, nil); err == nil || !strings.Contains(err.Error(), "at most 65536") {
			t.Error(err)
		}
		return nil
	})
	r.SetWriteDeadline(time.Now().Add(-time.Second))
	if _, err := r.Write(frame(p.Ifi[0].HardwareAddr, "x")); err != nil {
		t.Errorf("queueing needs no kernel: %v", err)
	}
	if err := r.Flush(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Write(frame(p.Ifi[0].HardwareAddr, "x")); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if err := r.Flush(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	r.Close() // closing twice is harmless
}

func TestRingConcurrent(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	r := ring(t, p, dev, 32, &Config{Firewall: judge(accept)})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 500 {
				if _, err := r.Write(frame(dev.HardwareAddr, "x")); err != nil {
					t.Error(err)
				}
			}
			if err := r.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestRingAllocs(t *testing.T) {
	p := newLab(t)
	dev := sink(t, p, "sink")
	r := ring(t, p, dev, 32, &Config{Firewall: judge(accept)})
	f := frame(dev.HardwareAddr, "x")
	n := testing.AllocsPerRun(500, func() {
		if _, err := r.Write(f); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

// nft runs nft(8) in the near namespace.
func nft(t testing.TB, p *lab.Pair, script string) string {
	t.Helper()
	path, err := exec.LookPath("nft")
	if err != nil {
		cannot(t, "needs nft")
	}
	var out []byte
	in(t, p, 0, func() (err error) {
		cmd := exec.Command(path, "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("nft: %w: %s", err, out)
		}
		return err
	})
	return string(out)
}
