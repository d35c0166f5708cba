package firewall

import (
	"sync"
	"testing"
)

// TestCounter counts from several goroutines, past the point where recent is emptied, and a
// frame too long for it.
func TestCounter(t *testing.T) {
	var c counter
	c.recent.Store((recentFrames - 1000) << byteBits)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				c.count(1500)
			}
		})
	}
	for range 100 {
		c.read()
	}
	wg.Wait()
	c.count(1 << 27)
	want := Counter{Frames: recentFrames - 1000 + 4000 + 1, Bytes: 4000*1500 + 1<<27}
	if got := c.read(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
