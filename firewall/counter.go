package firewall

import (
	"sync"
	"sync/atomic"
)

// counter counts frames and their bytes in one atomic step, which is what counting costs: recent has
// the frames in its upper bits and the bytes in its lower ones, and is emptied into the others long
// before either is full.
type counter struct {
	recent        atomic.Uint64
	mu            sync.Mutex
	frames, bytes uint64
}

const (
	byteBits = 40
	// recentFrames of 128 MiB, which no frame has, are less than 1<<byteBits bytes, with room
	// for what is counted until whoever sees so many has emptied recent.
	recentFrames = 1 << 12
)

// count counts a frame of that many bytes. It is small enough to cost no call.
func (c *counter) count(length int) {
	if c.recent.Add(1<<byteBits|uint64(length)) >= recentFrames<<byteBits {
		c.empty()
	}
}

// empty adds what recent has to the others.
func (c *counter) empty() {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.recent.Swap(0)
	c.frames += r >> byteBits
	c.bytes += r & (1<<byteBits - 1)
}

func (c *counter) read() Counter {
	c.empty()
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counter{Frames: c.frames, Bytes: c.bytes}
}
