package gate

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
)

// flood sends marked frames from the near device as fast as it can, with bypass and without,
// until stop is called, which returns how many it sent.
func flood(t testing.TB, p *lab.Pair) (stop func() int) {
	t.Helper()
	var done atomic.Bool
	var sent atomic.Int64
	var wg sync.WaitGroup
	frame := markedFrame(64)
	for _, bypass := range []bool{false, true} {
		var fd int
		must(t, p.Do(0, func() (err error) { fd, err = packetSocket(unix.SOCK_RAW, bypass); return err }))
		wg.Go(func() {
			defer unix.Close(fd)
			to := &unix.SockaddrLinklayer{Protocol: htons(0x88b5), Ifindex: p.Ifi[0].Index}
			for !done.Load() {
				if err := tolerate(unix.Sendto(fd, frame, 0, to)); err != nil {
					t.Errorf("bypass %t: %v", bypass, err)
					return
				}
				sent.Add(1)
			}
		})
	}
	return sync.OnceValue(func() int {
		done.Store(true)
		wg.Wait()
		return int(sent.Load())
	})
}

func TestReplaceUnderFullRate(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	far := receive(t, p, p.Ifi[1].Index)
	must(t, p.Do(0, func() error { _, err := p.Sink(0, "sink"); return err }))
	dev := Device{Name: "near"}
	configs := []Config{
		{Devices: []Device{dev}},
		{Devices: []Device{dev, {Name: "sink"}}},
		{Devices: []Device{dev}, Priority: -300},
		{Devices: []Device{{Name: "near", Senders: All}}, Priority: 300},
		{Devices: []Device{dev}},
		{Devices: []Device{{Name: "near", Senders: All}}},
		{Devices: []Device{dev}, Priority: -1},
	}
	must(t, g.Install(configs[0]))
	stop := flood(t, p)
	defer stop()
	installs := 0
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); installs++ {
		must(t, g.Install(configs[installs%len(configs)]))
	}
	sent := stop()
	if got, seen := far.count(0), i.seen(p.Ifi[0].Index); got != 0 || seen != sent {
		t.Errorf("%d frames passed unjudged; %d sent, %d inspected", got, sent, seen)
	}
	t.Logf("%d frames, %d replacements", sent, installs)
	if sent < 1000 || installs < 20 {
		t.Errorf("%d frames and %d replacements prove little", sent, installs)
	}
}

func TestInstallsAtOnce(t *testing.T) {
	p, g := near(t)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for k := range 25 {
				cfg := Config{Devices: []Device{{Name: "near", Senders: Senders(k % 2)}}, Priority: int32(worker % 2)}
				if err := g.Install(cfg); err != nil {
					t.Errorf("installer %d: %v", worker, err)
				}
			}
		})
	}
	wg.Wait()
	s := status(t, g)
	// Two that disagree about the priority may leave the chains of both, or of the later one.
	if s.Inspection == 0 || len(s.Guarded()) != 1 || len(s.Devices) > 2 {
		t.Errorf("%+v", s)
	}
	install(t, g, Device{Name: "near"})
	want := fmt.Sprintf("%+v", State{Installed: true, Inspection: s.Inspection, Devices: []DeviceState{
		{Device: Device{Name: "near"}, Indexes: []int{p.Ifi[0].Index}}}})
	if got := fmt.Sprintf("%+v", status(t, g)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	wg.Go(func() { must(t, g.Remove()) })
	wg.Go(func() { must(t, g.Remove()) })
	wg.Wait()
	if s := status(t, g); s.Installed || s.Inspection != 0 || len(s.Devices) != 0 {
		t.Errorf("after Remove: %+v", s)
	}
}
