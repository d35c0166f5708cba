package afpacket

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"
)

// contender sends n frames.
type contender struct {
	name string
	send func(n int) error
}

// race lets the contenders take turns, and gives each one's q-quantile (0 the
// fastest round, 0.5 the median) in nanoseconds a frame: what disturbs the
// machine disturbs all.
func race(t testing.TB, q float64, rounds, frames int, cs []contender) map[string]float64 {
	t.Helper()
	times := map[string][]float64{}
	for r := range rounds + 1 {
		for i := range cs {
			c := cs[(i+r)%len(cs)] // nobody is always first
			start := time.Now()
			if err := c.send(frames); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if r > 0 { // the first is for warming up
				times[c.name] = append(times[c.name], float64(time.Since(start).Nanoseconds())/float64(frames))
			}
		}
	}
	out := map[string]float64{}
	for name, ts := range times {
		slices.Sort(ts)
		out[name] = ts[int(q*float64(len(ts)))]
	}
	return out
}

// contenders send minimum-size frames into a device that swallows them.
func contenders(t testing.TB) []contender {
	p := newLab(t)
	dev := sink(t, p, "sink")
	f := frame(dev.HardwareAddr, "x")
	var theirs *packet.Conn
	in(t, p, 0, func() (err error) { theirs, err = packet.Listen(dev, packet.Raw, testType, nil); return err })
	t.Cleanup(func() { theirs.Close() })
	one := func(c net.PacketConn) func(n int) error {
		return func(n int) error {
			for range n {
				if _, err := c.WriteTo(f, broadcast); err != nil {
					return err
				}
			}
			return nil
		}
	}
	ms := make([]Message, 64)
	for i := range ms {
		ms[i] = Message{Bytes: f, Addr: broadcast}
	}
	batch := func(c *Conn) func(n int) error {
		return func(n int) error {
			for ; n > 0; n -= len(ms) {
				if _, err := c.WriteBatch(ms[:min(n, len(ms))]); err != nil {
					return err
				}
			}
			return nil
		}
	}
	ringed := func(r *Ring) func(n int) error {
		return func(n int) error {
			for range n {
				if _, err := r.Write(f); err != nil {
					return err
				}
			}
			return r.Flush()
		}
	}
	guarded, bypass := &Config{Firewall: judge(accept)}, &Config{Firewall: judge(accept), Bypass: true}
	open := connOn(t, p, dev, Raw, testType, nil)
	return []contender{
		{"mdlayher", one(theirs)},
		{"bare", func(n int) error { return bare(open, f, n) }},
		{"inactive", one(open)},
		{"elsewhere", func(n int) error { // another device is guarded
			active.Add(1)
			defer active.Add(-1)
			return one(open)(n)
		}},
		{"guarded", one(connOn(t, p, dev, Raw, testType, guarded))},
		{"datagram", one(connOn(t, p, dev, Datagram, testType, guarded))},
		{"bypass", one(connOn(t, p, dev, Raw, testType, bypass))},
		{"batch", batch(connOn(t, p, dev, Raw, testType, guarded))},
		{"batch-bypass", batch(connOn(t, p, dev, Raw, testType, bypass))},
		{"ring", ringed(ring(t, p, dev, 256, guarded))},
		{"ring-bypass", ringed(ring(t, p, dev, 256, bypass))},
	}
}

// bare is the transmit path without any thought of a guard.
func bare(c *Conn, f []byte, n int) error {
	for range n {
		t := begin(&c.outlet, nil, 1)
		t.outs = append(t.outs, out{f, c.dev.key.ifindex, 0, 0})
		t.kernel.transmit(&c.outlet)
		err := t.errs[0]
		t.end()
		if err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkSend prints nanoseconds a frame and, as a ratio, the share of what
// mdlayher/packet's own WriteTo takes; all measured side by side. b.N does not
// matter: run it with -benchtime 1x.
func BenchmarkSend(b *testing.B) {
	cs := contenders(b)
	ns := race(b, 0.5, 101, 2000, cs)
	for _, c := range cs {
		b.Run(c.name, func(b *testing.B) {
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ns[c.name], "ns/frame")
			b.ReportMetric(ns[c.name]/ns["mdlayher"], "of-mdlayher")
			b.ReportMetric(ns[c.name]/ns["bare"], "of-bare")
		})
	}
}

// A guarded send must beat mdlayher/packet's own, on any machine. The fastest
// rounds are compared, which a busy machine hardly touches. How cheap the
// classifier is, is measured elsewhere.
func TestGuardedIsFaster(t *testing.T) {
	if raceEnabled {
		t.Skip("speed means nothing under the race detector")
	}
	cs := contenders(t)
	ns := race(t, 0, 51, 500, cs)
	for _, name := range []string{"inactive", "guarded", "batch", "ring"} {
		if ns[name] >= ns["mdlayher"] {
			t.Errorf("%s takes %.0f ns a frame, mdlayher/packet %.0f", name, ns[name], ns["mdlayher"])
		}
	}
	t.Logf("ns a frame: %v", ns)
}
