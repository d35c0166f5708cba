package firewall

import (
	"sync"

	"github.com/postern-fw/postern/firewall/filter"
)

// limitKeys bounds the buckets of one limit. When all are in use and none has
// refilled, a new key is over its limit: memory stays bounded under a flood of
// invented keys, and the door stays closed.
const limitKeys = 1 << 16

// bucket is one token bucket; full again at the instant full, in nanoseconds.
// It is kept as a theoretical arrival time (GCRA), exact in integers.
type bucket struct{ full int64 }

// limiter is the live state of a rule's limit.
type limiter struct {
	limit *Limit
	mu    sync.Mutex
	one   bucket
	keyed map[string]*bucket
	swept int64
}

func newLimiter(l *Limit) *limiter {
	if l == nil {
		return nil
	}
	return &limiter{limit: l, keyed: map[string]*bucket{}}
}

// take consumes a token of the frame's bucket and reports whether there was
// one. A frame without the fields the limit is keyed by has none.
func (l *limiter) take(p *filter.Packet, consume bool) bool {
	var buf [keyBytes * 2]byte
	b, now, ok := buf[:0], p.Meta.Time, false
	if now == 0 {
		now = bootTime()
	}
	for _, f := range l.limit.Per {
		v, present := f.Value(p, 0)
		if !present {
			return false
		}
		if b, ok = appendKey(b, f.Type, v, whole(f.Type)); !ok {
			return false
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := &l.one
	if len(l.limit.Per) > 0 {
		if at = l.keyed[string(b)]; at == nil {
			if at = l.newBucket(b, now, consume); at == nil {
				return false
			}
		}
	}
	return at.take(l.limit, now, consume)
}

func (l *limiter) newBucket(key []byte, now int64, consume bool) *bucket {
	if !consume {
		return &bucket{}
	}
	// One sweep a second at most: a flood must not make every frame pay for one.
	if len(l.keyed) >= limitKeys && now-l.swept >= 1e9 {
		l.swept = now
		for k, b := range l.keyed {
			if b.full <= now {
				delete(l.keyed, k)
			}
		}
	}
	if len(l.keyed) >= limitKeys {
		return nil
	}
	b := &bucket{}
	l.keyed[string(key)] = b
	return b
}

func (b *bucket) take(l *Limit, now int64, consume bool) bool {
	cost := max(1, l.Interval/int64(l.Tokens))
	full := max(b.full, now)
	if full+cost-now > int64(l.Burst)*cost {
		return false
	}
	if consume {
		b.full = full + cost
	}
	return true
}
