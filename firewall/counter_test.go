package firewall

import (
	"sync"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// TestCounter counts from several goroutines, past the point where recent is emptied, and a
// frame too long for it.
func TestCounter(t *testing.T) {
	var c counter
	c.recent.Store((recentFrames - 1000) << byteBits)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			var p filter.Packet
			p.Frame.Bytes = make([]byte, 1500)
			for range 1000 {
				c.count(&p)
			}
		})
	}
	for range 100 {
		c.read()
	}
	wg.Wait()
	var long filter.Packet
	long.Frame.Bytes = make([]byte, maxCounted+1)
	c.count(&long)
	want := Counter{Frames: recentFrames - 1000 + 4000 + 1, Bytes: 4000*1500 + maxCounted + 1}
	if got := c.read(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
