package afpacket

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

func TestKernelErrors(t *testing.T) {
	p := newLab(t)
	raw, dgram := conn(t, p, Raw, 0, &Config{Firewall: judge(accept)}), conn(t, p, Datagram, testType, nil)
	var typedNil *Addr
	for _, tt := range []struct {
		name string
		c    *Conn
		b    []byte
		a    net.Addr
		want error
	}{
		{"short header", raw, make([]byte, 13), broadcast, unix.EINVAL},
		{"empty", raw, nil, broadcast, unix.EINVAL},
		{"beyond the MTU", raw, make([]byte, 1515), broadcast, unix.EMSGSIZE},
		{"beyond any MTU", raw, make([]byte, 70000), broadcast, unix.EMSGSIZE},
		{"datagram beyond the MTU", dgram, make([]byte, 1501), broadcast, unix.EMSGSIZE},
		{"no address", raw, make([]byte, 60), nil, unix.EINVAL},
		{"nil address", raw, make([]byte, 60), typedNil, unix.EINVAL},
		{"another kind of address", raw, make([]byte, 60), &net.UDPAddr{}, unix.EINVAL},
		{"empty address", raw, make([]byte, 60), &Addr{}, unix.EINVAL},
		{"short address", dgram, make([]byte, 60), &Addr{HardwareAddr: net.HardwareAddr{1, 2}}, unix.EINVAL},
	} {
		n, err := tt.c.WriteTo(tt.b, tt.a)
		var op *net.OpError
		if n != 0 || !errors.Is(err, tt.want) || !errors.As(err, &op) || op.Op != "write" {
			t.Errorf("%s: %d, %v", tt.name, n, err)
		}
		_ = err.Error()
	}
	if _, err := raw.WriteTo(make([]byte, 1514), broadcast); err != nil {
		t.Errorf("the longest frame: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	p := newLab(t)
	lo := &net.Interface{Index: 1, Name: "lo"}
	for _, tt := range []struct {
		name string
		ifi  *net.Interface
		typ  Type
		want string
	}{
		{"no interface", nil, Raw, "no interface given"},
		{"gone", &net.Interface{Index: 4711, Name: "eth9"}, Raw, "eth9"},
		{"gone", &net.Interface{Index: 4711, Name: "eth9"}, Raw, "`ip link` lists them"},
		{"gone", &net.Interface{Index: 4711, Name: "eth9"}, Datagram, "`ip link` lists them"},
		{"another namespace's", &net.Interface{Index: 1, Name: "eth0"}, Raw, "interface 1 is lo here, not eth0"},
		{"no type", lo, 0, "invalid Type"},
	} {
		in(t, p, 0, func() error {
			c, err := Listen(tt.ifi, tt.typ, 0, nil)
			var op *net.OpError
			if c != nil || !errors.As(err, &op) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v", tt.name, err)
			}
			if tt.typ == Raw {
				if _, err := Attach(tt.ifi, judge(accept)); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Attach, %s: %v", tt.name, err)
				}
				if _, err := OpenRing(tt.ifi, 0, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("OpenRing, %s: %v", tt.name, err)
				}
			}
			return nil
		})
	}
	in(t, p, 0, func() error {
		if _, err := Attach(lo, nil); !errors.Is(err, errNilHook) {
			t.Errorf("nil hook: %v", err)
		}
		return nil
	})
}

func TestNoRights(t *testing.T) {
	p := newLab(t)
	in(t, p, 0, func() error { // on a thread that ends with this function
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			return err
		}
		for name, open := range map[string]func() error{
			"Listen":     func() error { _, err := Listen(p.Ifi[0], Raw, 0, nil); return err },
			"Datagram":   func() error { _, err := Listen(p.Ifi[0], Datagram, 0, nil); return err },
			"OpenRing":   func() error { _, err := OpenRing(p.Ifi[0], 0, nil); return err },
			"NewOverlay": func() error { _, err := NewOverlay("vx0", p.Ifi[0], testVXLAN, nil); return err },
		} {
			err := open()
			if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "near") || !strings.Contains(err.Error(), "CAP_NET_RAW; run as root") {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
}

// A TUN device has no Ethernet header: frames cannot be classified, and would
// leave as IP packets.
func TestNotEthernet(t *testing.T) {
	p := newLab(t)
	var added error
	var ifi *net.Interface
	in(t, p, 0, func() (err error) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "tun"
		if added = netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TUN}); added != nil {
			return nil
		}
		if ifi, err = net.InterfaceByName("tun"); err != nil {
			return err
		}
		if _, err := Listen(ifi, Raw, 0, nil); !errors.Is(err, unix.EAFNOSUPPORT) {
			t.Errorf("Listen on TUN: %v", err)
		}
		return nil
	})
	if added != nil {
		cannot(t, "needs /dev/net/tun: "+added.Error())
	}
	c := conn(t, p, Raw, 0, &Config{Firewall: forwardTo("tun")})
	_, err := c.WriteTo(frame(p.Ifi[0].HardwareAddr, "x"), broadcast)
	if e := mustBlock(t, err); e.Reason != firewall.ReasonUnsendable {
		t.Errorf("%+v", e)
	}
}

// Nothing may hand out a descriptor that can be sent on.
func TestNoDescriptor(t *testing.T) {
	var c any = &Conn{}
	if _, ok := c.(syscall.Conn); ok {
		t.Error("Conn has SyscallConn")
	}
	p := newLab(t)
	conn := conn(t, p, Raw, 0, nil)
	if err := conn.SetReadOption(unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		t.Error(err)
	}
	for _, name := range []int{unix.PACKET_TX_RING, unix.PACKET_QDISC_BYPASS, unix.PACKET_VNET_HDR} {
		if err := conn.SetReadOption(unix.SOL_PACKET, name, 1); !errors.Is(err, unix.EPERM) {
			t.Errorf("option %d: %v", name, err)
		}
	}
}
