package afpacket

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// active counts the hooks in force anywhere: the kernel's egress_needed_key.
var active atomic.Int32

// device is the hook list of one interface, shared by all that send there.
type device struct {
	key   deviceKey
	hooks atomic.Pointer[hookList] // nil: not guarded
	refs  int                      // under registry.mu
}

// deviceKey names an interface: indexes alone repeat from one network namespace
// to the next. Overlays have negative indexes.
type deviceKey struct {
	netns   uint64 // SO_NETNS_COOKIE
	ifindex int32
}

type hookList struct{ upper, lower []*Hook }

// registry is every device with a hook or a sender. Readers load the map, which
// is replaced, never changed.
var registry struct {
	mu      sync.Mutex
	devices atomic.Pointer[map[deviceKey]*device]
}

// lookup returns the hook list's owner, nil if it has neither hook nor sender.
func lookup(k deviceKey) *device {
	if m := registry.devices.Load(); m != nil {
		return (*m)[k]
	}
	return nil
}

// hold finds or makes the device and counts one more user of it.
func hold(k deviceKey) *device {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	d := lookup(k)
	if d == nil {
		d = &device{key: k}
		replaceDevices(func(m map[deviceKey]*device) { m[k] = d })
	}
	d.refs++
	return d
}

func (d *device) release() {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	if d.refs--; d.refs == 0 {
		replaceDevices(func(m map[deviceKey]*device) { delete(m, d.key) })
	}
}

func replaceDevices(change func(map[deviceKey]*device)) {
	m := map[deviceKey]*device{}
	if old := registry.devices.Load(); old != nil {
		m = maps.Clone(*old)
	}
	change(m)
	registry.devices.Store(&m)
}

// Hook is one hook of an interface.
type Hook struct {
	dev        *device
	classifier Classifier
	lower      Lower
	once       sync.Once
}

var errNilHook = errors.New("afpacket: a hook cannot be nil")

// Attach adds a classifier to an interface of the calling thread's network
// namespace. It sees every frame that this process sends there through this
// package, after the classifiers attached before it. It is gone when the
// interface is, even if one of the same name takes its place.
func Attach(ifi *net.Interface, c Classifier) (*Hook, error) {
	if c == nil {
		return nil, errNilHook
	}
	return attach(ifi, &Hook{classifier: c})
}

// AttachLower adds a hook to the layer below the classifiers of ifi.
func AttachLower(ifi *net.Interface, l Lower) (*Hook, error) {
	if l == nil {
		return nil, errNilHook
	}
	return attach(ifi, &Hook{lower: l})
}

func attach(ifi *net.Interface, h *Hook) (*Hook, error) {
	k, err := locate(ifi)
	if err != nil {
		return nil, opError("attach", ifi, err)
	}
	h.dev = hold(k)
	h.dev.update(func(l *hookList) {
		if h.lower != nil {
			l.lower = append(l.lower, h)
		} else {
			l.upper = append(l.upper, h)
		}
	})
	active.Add(1)
	return h, nil
}

// Detach removes the hook. A frame that is under way may still see it. Detaching
// twice is harmless.
func (h *Hook) Detach() {
	h.once.Do(func() {
		active.Add(-1)
		is := func(x *Hook) bool { return x == h }
		h.dev.update(func(l *hookList) {
			l.upper, l.lower = slices.DeleteFunc(l.upper, is), slices.DeleteFunc(l.lower, is)
		})
		h.dev.release()
	})
}

// update replaces the hook list; a sender sees the old one or the new.
func (d *device) update(change func(*hookList)) {
	registry.mu.Lock()
	defer registry.mu.Unlock()
	l := &hookList{}
	if old := d.hooks.Load(); old != nil {
		l.upper, l.lower = slices.Clone(old.upper), slices.Clone(old.lower)
	}
	change(l)
	if len(l.upper)+len(l.lower) == 0 {
		l = nil
	}
	d.hooks.Store(l)
}
