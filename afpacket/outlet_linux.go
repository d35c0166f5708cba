package afpacket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// maxFrame is the longest frame that any interface takes: a loopback's MTU, an
// Ethernet header and a VLAN tag.
const maxFrame = 65536 + 14 + 4

// outlet is a guarded way out: a socket, its interface, and who decides there.
type outlet struct {
	fd       syscall.RawConn
	direct   *sendSocket // fd, if it is one
	netns    uint64
	own      Classifier
	event    func(*Event)
	dev      *device
	datagram bool
	protocol uint16 // host byte order; the type that Datagram's header gets

	// at is replaced when the kernel tells of a change.
	at    atomic.Pointer[port]
	links *links
	once  sync.Once
}

var epoch = time.Now()

// open makes an outlet of a packet socket that is bound to ifi.
func (o *outlet) open(fd syscall.RawConn, ifi *net.Interface, cfg *Config) error {
	o.fd, o.own, o.event = fd, cfg.Firewall, cfg.Event
	o.direct, _ = fd.(*sendSocket)
	err := control(fd, func(fd int) (err error) {
		if cfg.Bypass {
			if err := bypass(fd); err != nil {
				return err
			}
		}
		o.netns, err = netnsCookie(fd)
		return err
	})
	if err != nil {
		return err
	}
	o.links = watchLinks(o.netns)
	changes := o.links.changes.Load()
	t := begin(o, nil, 0)
	defer t.end()
	p, err := t.kernel.identify(o)
	if err != nil {
		return err
	}
	if err := sameName(ifi, p.name); err != nil {
		return err
	}
	o.dev = hold(deviceKey{o.netns, p.ifindex})
	p.dev = o.dev
	o.at.Store(heap(p, changes))
	return nil
}

func bypass(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return fmt.Errorf("PACKET_QDISC_BYPASS: %w: if a seal on this cgroup forbids it, send without Config.Bypass", err)
	}
	return nil
}

func (o *outlet) close() {
	o.once.Do(func() {
		if o.dev != nil {
			o.dev.release()
		}
		if o.links != nil {
			o.links.release()
		}
	})
}

// guarded reports whether anybody wants to see this outlet's frames.
func (o *outlet) guarded() bool {
	return o.own != nil || active.Load() != 0 && o.dev.hooks.Load() != nil
}

// here is the outlet's own port, as the kernel told of it last. If the interface
// is gone it says ENXIO, as the kernel would: another one may have its index.
func (o *outlet) here(t *transit) (*port, error) {
	p := o.at.Load()
	changes := o.links.changes.Load() // before asking: what changes meanwhile is asked for next time
	if p.asked == changes {
		return p, nil
	}
	q, err := t.kernel.identify(o)
	switch {
	case errors.Is(err, net.ErrClosed):
		return nil, err
	case err != nil:
		return nil, os.NewSyscallError("sendto", unix.ENXIO)
	}
	q.dev = o.dev
	p = heap(q, changes)
	o.at.Store(p)
	return p, nil
}

// heap keeps the common case from paying for the rare one's allocation.
func heap(p port, changes uint64) *port {
	m := p.known(0)
	p.meta, p.asked = &m, changes
	return &p
}

// port implements ports.
func (o *outlet) port(t *transit, name string) (port, error) {
	if v := findOverlay(o.netns, name); v != nil {
		return v.self, nil
	}
	p, err := t.kernel.find(o, name)
	if err != nil {
		return port{}, err
	}
	p.name, p.dev = name, lookup(deviceKey{o.netns, p.ifindex})
	return p, nil
}

// load takes the snapshot of message msg and leads it through the data path.
// What comes out is in t.outs, what the firewall says in t.errs.
func (o *outlet) load(t *transit, msg int, b []byte, a *Addr) {
	if err := o.check(b, a); err != nil {
		t.errs[msg] = err
		return
	}
	guarded := o.guarded()
	if !guarded && !o.datagram {
		t.outs = append(t.outs, out{b, o.dev.key.ifindex, 0, msg})
		return
	}
	if t.at == nil {
		at, err := o.here(t)
		if err != nil {
			t.errs[msg] = err
			return
		}
		t.at = at
	}
	p := t.at
	f := o.snapshot(t, b, a, p)
	if !guarded {
		t.outs = append(t.outs, out{f, p.ifindex, 0, msg})
		return
	}
	t.own, t.home = o.own, p.ifindex
	t.errs[msg] = t.egress(p, skb{bytes: f, msg: msg})
}

// check makes the errors that the kernel would make before its hook runs.
func (o *outlet) check(b []byte, a *Addr) error {
	switch {
	case o.datagram && len(a.HardwareAddr) != 6, !o.datagram && len(b) < 14, len(a.HardwareAddr) > 8:
		return os.NewSyscallError("sendto", unix.EINVAL)
	case len(b) > maxFrame:
		return os.NewSyscallError("sendto", unix.EMSGSIZE)
	}
	return nil
}

// snapshot copies the frame to where its sender cannot reach it. A Datagram gets
// the header that the kernel would give it (net/ethernet/eth.c, eth_header).
func (o *outlet) snapshot(t *transit, b []byte, a *Addr, p *port) []byte {
	if !o.datagram {
		return t.copy(b)
	}
	f := t.alloc(14 + len(b))
	copy(f, a.HardwareAddr)
	copy(f[6:], p.mac[:])
	typ := o.protocol
	if typ == unix.ETH_P_802_3 || typ == unix.ETH_P_802_2 {
		typ = uint16(len(b))
	}
	binary.BigEndian.PutUint16(f[12:], typ)
	copy(f[14:], b)
	return f
}

// writeTo sends one frame. Where nobody but the outlet's own firewall has a say, and that accepts, as nearly
// always, it does so without the data path's lists.
func (o *outlet) writeTo(b []byte, a *Addr) error {
	if o.direct == nil || active.Load() != 0 && o.dev.hooks.Load() != nil {
		return o.writeThrough(b, a)
	}
	if err := o.check(b, a); err != nil {
		return err
	}
	if o.own == nil && !o.datagram {
		return o.direct.send(b)
	}
	t := transits.Get().(*transit)
	err := o.writeDirect(t, b, a)
	transits.Put(t)
	return err
}

func (o *outlet) writeDirect(t *transit, b []byte, a *Addr) error {
	p, err := o.here(t)
	if err != nil {
		return err
	}
	f := o.snapshot(t, b, a, p)
	t.block = t.block[:0] // until the next snapshot f stays what it is
	if o.own == nil {
		return o.direct.send(f)
	}
	t.pkt.Decode(f, p.meta)
	d := o.own.Classify(&t.pkt)
	if d.Verdict != firewall.Accept || !d.Plain() || o.event != nil {
		return o.finish(t, p, d, f)
	}
	return o.direct.send(f)
}

// finish does what the outlet's own firewall said of a frame.
func (o *outlet) finish(t *transit, p *port, d firewall.Decision, f []byte) error {
	defer t.clear()
	t.block = t.block[:len(f)] // f is at its beginning
	t.ports, t.event, t.own, t.home, t.errs = o, o.event, o.own, p.ifindex, append(t.errs, nil)
	s := skb{bytes: f}
	gone, err := t.act(p, &d, &s)
	if t.errs[0] = err; !gone {
		t.outs = append(t.outs, out{s.bytes, p.ifindex, s.mark, 0})
	}
	t.kernel.transmit(o)
	return t.errs[0]
}

// writeThrough leads one frame through the data path.
func (o *outlet) writeThrough(b []byte, a *Addr) error {
	t := begin(o, o.event, 1)
	defer t.end()
	o.load(t, 0, b, a)
	t.kernel.transmit(o)
	return t.errs[0]
}

// sameName refuses an interface of another namespace, whose index means a
// different one here.
func sameName(ifi *net.Interface, name string) error {
	if ifi.Name != "" && ifi.Name != name {
		return fmt.Errorf("interface %d is %s here, not %s: it was renamed, or belongs to another network namespace", ifi.Index, name, ifi.Name)
	}
	return nil
}

// locate finds ifi in the calling thread's network namespace.
func locate(ifi *net.Interface) (deviceKey, error) {
	if ifi == nil {
		return deviceKey{}, errNoInterface
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return deviceKey{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	netns, err := netnsCookie(fd)
	if err != nil {
		return deviceKey{}, err
	}
	k := deviceKey{netns, int32(ifi.Index)}
	if lookup(k) != nil && ifi.Index < 0 { // an overlay
		return k, nil
	}
	name, err := interfaceName(fd, ifi.Index)
	if err != nil {
		return deviceKey{}, explain(err)
	}
	return k, sameName(ifi, name)
}

var errNoInterface = errors.New("no interface given; net.InterfaceByName finds one")

// explain adds the remedy to what people meet first.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: packet sockets need CAP_NET_RAW; run as root, or `setcap cap_net_raw+ep` the program", err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: no such interface in this network namespace; `ip link` lists them", err)
	}
	return err
}

var _ Classifier = (*firewall.Firewall)(nil)
