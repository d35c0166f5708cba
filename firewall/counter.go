package firewall

import (
	"sync"
	"sync/atomic"

	"github.com/postern-fw/postern/firewall/filter"
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
	// recentFrames of at most maxCounted bytes are less than 1<<byteBits bytes, with room
	// for what is counted until whoever sees so many has emptied recent.
	recentFrames = 1 << 22
	maxCounted   = 1 << 17
)

func (c *counter) count(p *filter.Packet) {
	n := uint64(len(p.Frame.Bytes))
	if n > maxCounted {
		c.add(1, n)
		return
	}
	if c.recent.Add(1<<byteBits|n)>>byteBits >= recentFrames {
		c.add(0, 0)
	}
}

// add adds to the counter, and empties recent.
func (c *counter) add(frames, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.recent.Swap(0)
	c.frames += frames + r>>byteBits
	c.bytes += bytes + r&(1<<byteBits-1)
}

func (c *counter) read() Counter {
	c.add(0, 0)
	c.mu.Lock()
	defer c.mu.Unlock()
	return Counter{Frames: c.frames, Bytes: c.bytes}
}
