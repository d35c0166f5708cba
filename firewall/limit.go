package firewall

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/postern-fw/postern/firewall/filter"
)

const (
	// limitKeys is how many keys a limit can tell apart at one time.
	limitKeys = 1 << 16
	// limitKeysShared is what all keyed limits of a policy share once they are so
	// many that limitKeys for each would be too much memory (16 bytes a key).
	limitKeysShared = 1 << 22
	// limitKeysFew is what a limit has in any case.
	limitKeysFew = 1 << 10
	// limitWindow is how many slots a key may live in.
	limitWindow = 16
)

// limiter is the live state of a rule's limit: token buckets in a table whose
// size is fixed, so that no flood of invented keys makes it grow and taking a
// token allocates nothing. A key that finds no slot, because all it may live in
// belong to buckets that have not refilled, is over its limit: the door stays
// closed.
type limiter struct {
	limit *Limit
	seed  maphash.Seed // a sender cannot choose keys that collide
	mu    sync.Mutex
	slots []slot
}

// slot is a token bucket, kept as a theoretical arrival time (GCRA), exact in
// integers: it is full again at the instant full, in nanoseconds, and from then
// on the slot is free.
type slot struct {
	key  uint64
	full int64
}

// newLimiter makes the limiter of l with room for the given number of keys, a
// power of two; nil for no limit. Pages of the table that no frame has touched
// take no memory.
func newLimiter(l *Limit, keys int) *limiter {
	if l == nil {
		return nil
	}
	if len(l.Per) == 0 {
		keys = 1
	}
	return &limiter{limit: l, seed: maphash.MakeSeed(), slots: make([]slot, keys)}
}

// keysPerLimit divides the room for keys among the keyed limits of a policy.
func keysPerLimit(rules []*Rule) int {
	keyed, each := 0, limitKeys
	for _, r := range rules {
		if r.Limit != nil && len(r.Limit.Per) > 0 {
			keyed++
		}
	}
	for each > limitKeysFew && each*keyed > limitKeysShared {
		each /= 2
	}
	return each
}

// take asks for a token of the frame's bucket, takes it if consume, and reports
// whether there was one. A frame without the fields the limit is keyed by has
// none.
func (l *limiter) take(p *filter.Packet, consume bool) bool {
	now := p.Meta().Time
	if now == 0 {
		now = started + int64(time.Since(begin))
	}
	key, ok := l.key(p)
	if !ok {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.find(key, now)
	if s == nil {
		return false
	}
	if s.key != key || s.full < now {
		if !consume {
			return true
		}
		s.key, s.full = key, now
	}
	cost := max(1, l.limit.Interval/int64(l.limit.Tokens))
	if s.full+cost-now > int64(l.limit.Burst)*cost {
		return false
	}
	if consume {
		s.full += cost
	}
	return true
}

// A limit's clock is CLOCK_BOOTTIME but for what the machine sleeps from now on, when no buckets fill: it takes
// a tenth of the time to read, and no element's deadline hangs on it.
var begin, started = time.Now(), bootTime()

// key is a hash of the frame's fields, of texts of any length.
func (l *limiter) key(p *filter.Packet) (uint64, bool) {
	if per := l.limit.Per; len(per) == 1 && per[0].Type.Numeric() {
		v, present := per[0].Value(p, 0)
		return maphash.Comparable(l.seed, v.Num), present
	}
	var h maphash.Hash
	h.SetSeed(l.seed)
	for _, f := range l.limit.Per {
		v, present := f.Value(p, 0)
		if !present {
			return 0, false
		}
		var head [8]byte
		if f.Type.Numeric() {
			binary.BigEndian.PutUint64(head[:], v.Num)
		} else {
			binary.BigEndian.PutUint64(head[:], uint64(len(v.Bytes)))
		}
		h.Write(head[:])
		h.Write(v.Bytes)
	}
	return h.Sum64(), true
}

// find gives the key's slot, or else a free one, or else nil. A table of one
// slot has one bucket for all frames.
func (l *limiter) find(key uint64, now int64) (free *slot) {
	mask := uint64(len(l.slots) - 1)
	for i := range min(limitWindow, len(l.slots)) {
		s := &l.slots[(key+uint64(i))&mask]
		if s.key == key {
			return s
		}
		if free == nil && s.full <= now {
			free = s
		}
	}
	return free
}
