package afpacket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// encapLen is what VXLAN over IPv4 puts before a frame: Ethernet, IPv4, UDP and
// VXLAN headers.
const encapLen = 14 + 20 + 8 + 8

// Overlay is a device in this process that sends VXLAN-encapsulated frames on an
// underlay interface. A frame is classified on the overlay and, encapsulated, on
// the underlay. It only sends.
type Overlay struct {
	outlet // the underlay's
	tx     *sendSocket
	vx     VXLAN
	self   port
	hook   *Hook // Config.Firewall
	mtu    int
	closed sync.Once
}

// overlays finds an overlay by its name: that of a `forward` or `duplicate`.
var overlays struct {
	sync.RWMutex
	byName map[overlayKey]*Overlay
	last   atomic.Int32 // indexes are negative: the kernel's are not
}

type overlayKey struct {
	netns uint64
	name  string
}

// NewOverlay makes an overlay on under, an interface of the calling thread's
// network namespace. Rules find it by name, which must be free there;
// cfg.Firewall becomes the first hook of the overlay, not of the underlay.
func NewOverlay(name string, under *net.Interface, vx VXLAN, cfg *Config) (*Overlay, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	v, err := newOverlay(name, under, vx, cfg)
	if err != nil {
		return nil, opError("overlay", under, fmt.Errorf("overlay %q: %w", name, err))
	}
	return v, nil
}

func newOverlay(name string, under *net.Interface, vx VXLAN, cfg *Config) (_ *Overlay, err error) {
	if under == nil {
		return nil, errNoInterface
	}
	if name == "" || vx.VNI >= 1<<24 || !vx.Local.Is4() || !vx.Remote.Is4() || len(vx.NextHop) != 6 || len(vx.HardwareAddr) != 6 {
		return nil, errors.New("needs a name, a VNI below 2^24, IPv4 addresses, and hardware addresses of 6 bytes")
	}
	if vx.Port == 0 {
		vx.Port = 4789
	}
	v := &Overlay{vx: vx, mtu: under.MTU - encapLen}
	if v.tx, err = sender(under); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			v.Close()
		}
	}()
	if err := v.open(v.tx, under, &Config{Bypass: cfg.Bypass, Event: cfg.Event}); err != nil {
		return nil, err
	}
	k := deviceKey{v.netns, overlays.last.Add(-1)}
	v.self = port{ifindex: k.ifindex, name: name, mac: [6]byte(vx.HardwareAddr), dev: hold(k), overlay: v}
	if cfg.Firewall != nil {
		if v.hook, err = Attach(v.Interface(), cfg.Firewall); err != nil {
			return nil, err
		}
	}
	return v, v.register()
}

func (v *Overlay) register() error {
	overlays.Lock()
	defer overlays.Unlock()
	k := overlayKey{v.netns, v.self.name}
	if overlays.byName[k] != nil {
		return errors.New("the name is taken")
	}
	if overlays.byName == nil {
		overlays.byName = map[overlayKey]*Overlay{}
	}
	overlays.byName[k] = v
	return nil
}

func findOverlay(netns uint64, name string) *Overlay {
	overlays.RLock()
	defer overlays.RUnlock()
	return overlays.byName[overlayKey{netns, name}]
}

// Interface describes the overlay, for Attach and AttachLower. Its index means
// nothing to the kernel.
func (v *Overlay) Interface() *net.Interface {
	return &net.Interface{Index: int(v.self.ifindex), Name: v.self.name, HardwareAddr: v.vx.HardwareAddr, MTU: v.mtu}
}

// Write sends one frame, Ethernet header first, and takes a copy of it first.
// Its errors are those of Conn.WriteTo.
func (v *Overlay) Write(frame []byte) (int, error) {
	t := begin(&v.outlet, v.event, 1)
	defer t.end()
	err := v.check(frame, &Addr{})
	if err == nil {
		err = t.egress(&v.self, skb{bytes: t.copy(frame)})
	}
	t.kernel.transmit(&v.outlet)
	if err == nil {
		err = t.errs[0]
	}
	if err != nil {
		return 0, &net.OpError{Op: "write", Net: "packet", Source: place(v.self.name), Err: err}
	}
	return len(frame), nil
}

// Close takes the overlay away. Its hooks see nothing any more.
func (v *Overlay) Close() error {
	var err error
	v.closed.Do(func() {
		overlays.Lock()
		if k := (overlayKey{v.netns, v.self.name}); overlays.byName[k] == v {
			delete(overlays.byName, k)
		}
		overlays.Unlock()
		if v.hook != nil {
			v.hook.Detach()
		}
		err = v.tx.Close()
		if v.self.dev != nil {
			v.self.dev.release()
		}
		v.outlet.close()
	})
	return err
}

// encapsulate is the overlay's ndo_start_xmit: it sends the frame, in its outer
// headers, on the underlay, from the top of the underlay's data path.
func (v *Overlay) encapsulate(t *transit, f skb) error {
	under, err := v.here(t)
	if err != nil {
		return err
	}
	b := t.alloc(encapLen + len(f.bytes))
	v.header(b, under.mac, f.bytes)
	copy(b[encapLen:], f.bytes)
	f.bytes = b
	return t.egress(under, f)
}

// header writes the outer headers of inner to b (RFC 7348, 5). The source port
// tells flows apart; the UDP checksum is 0, as the RFC would have it.
func (v *Overlay) header(b []byte, src [6]byte, inner []byte) {
	be := binary.BigEndian
	clear(b[:encapLen])
	copy(b, v.vx.NextHop)
	copy(b[6:], src[:])
	be.PutUint16(b[12:], 0x0800)

	ip := b[14:34]
	local, remote := v.vx.Local.As4(), v.vx.Remote.As4()
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	be.PutUint16(ip[2:], uint16(encapLen-14+len(inner)))
	be.PutUint16(ip[6:], 0x4000) // do not fragment
	copy(ip[12:], local[:])
	copy(ip[16:], remote[:])
	be.PutUint16(ip[10:], checksum(ip))

	udp := b[34:42]
	be.PutUint16(udp, sourcePort(inner))
	be.PutUint16(udp[2:], v.vx.Port)
	be.PutUint16(udp[4:], uint16(8+8+len(inner)))

	b[42] = 0x08 // the VNI is valid
	be.PutUint32(b[46:], v.vx.VNI<<8)
}

// sourcePort hashes the inner Ethernet header into the dynamic ports.
func sourcePort(inner []byte) uint16 {
	h := uint32(2166136261)
	for _, c := range inner[:14] {
		h = (h ^ uint32(c)) * 16777619 // FNV-1a
	}
	return 49152 + uint16((h^h>>16)&0x3fff)
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
