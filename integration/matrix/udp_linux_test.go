package matrix

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/evasions"
)

// datagram is what an ordinary UDP socket can send of a frame.
type datagram struct {
	from    address
	port    int
	payload []byte
}

type address struct {
	ip   [4]byte
	port int
}

// asDatagram finds it in a frame of the device's address that is IPv4 without options or
// fragments, from a DHCP port to one, to everybody, with the lengths that the kernel
// would write.
func (dev device) asDatagram(b []byte) (d datagram, ok bool) {
	const ip, udp, end = 14, 14 + 20, 14 + 20 + 8
	u16 := func(at int) int { return int(binary.BigEndian.Uint16(b[at:])) }
	if len(b) < end || [6]byte(b[6:12]) != dev.mac || u16(12) != unix.ETH_P_IP || b[ip] != 0x45 || u16(ip+6)&0x3fff != 0 || b[ip+9] != unix.IPPROTO_UDP ||
		string(b[ip+16:udp]) != "\xff\xff\xff\xff" || u16(ip+2) != 20+u16(udp+4) || ip+u16(ip+2) > len(b) || u16(udp+4) < 8 {
		return d, false
	}
	d.from = address{[4]byte(b[ip+12:]), u16(udp)}
	d.port, d.payload = u16(udp+2), b[end:ip+u16(ip+2)]
	return d, isDHCP(d.from.port) && isDHCP(d.port)
}

func isDHCP(port int) bool { return port == 67 || port == 68 }

// udpSockets are by what they are bound to, in the near namespace.
type udpSockets map[address]int

// open opens a socket as a DHCP client or server does. IP_TRANSPARENT lets it have any
// source address.
func (list udpSockets) open(t testing.TB, w *world, from address) (fd int) {
	t.Helper()
	if fd, ok := list[from]; ok {
		return fd
	}
	must(t, w.Do(0, func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		for _, o := range [][2]int{{unix.SOL_SOCKET, unix.SO_BROADCAST}, {unix.SOL_SOCKET, unix.SO_REUSEADDR}, {unix.SOL_IP, unix.IP_TRANSPARENT}} {
			if err := unix.SetsockoptInt(fd, o[0], o[1], 1); err != nil {
				return err
			}
		}
		if err := unix.BindToDevice(fd, w.near.name); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: from.ip, Port: from.port})
	}))
	t.Cleanup(func() { unix.Close(fd) })
	list[from] = fd
	return fd
}

// TestUDPSockets: what an ordinary socket on a DHCP port sends is the IP stack's, which a policy
// for packet sockets lets pass, and one for all senders judges, at either hook.
func TestUDPSockets(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	// A namespace without any address has no routing table, and takes each address for a broadcast one.
	must(t, w.Do(0, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}))
	sockets := udpSockets{}
	for _, run := range []struct {
		name string
		how  *how
		open bool
	}{
		{"no guard", nil, true},
		{"gate, packet sockets", &how{}, true},
		{"tc, packet sockets", &how{hook: firewall.HookTC}, true},
		{"gate, all", &how{all: true}, false},
		{"tc, all", &how{hook: firewall.HookTC, all: true}, false},
	} {
		var sum tally
		w.unguard(t)
		for _, role := range w.roles {
			if run.how != nil {
				w.guard(t, role.policy, *run.how)
			}
			of := r.datagrams(t, w, role, sockets)
			if of.forged == 0 { // of ARP alone
				continue
			}
			if run.open {
				of.expectOpen(t, run.name+", "+role.policy.Name)
			} else {
				of.expectClosed(t, run.name+", "+role.policy.Name)
			}
			sum.add(of)
		}
		t.Logf("%s: %s", run.name, sum)
		if sum.forged < 20 || sum.honest < 2 {
			t.Errorf("%s: few frames can be sent by a UDP socket: %s", run.name, sum)
		}
	}
}

// datagrams sends what UDP sockets can of a role's frames. What arrives is known by its
// payload: the headers are the kernel's own.
func (r *receiver) datagrams(t testing.TB, w *world, role *role, sockets udpSockets) (sum tally) {
	t.Helper()
	send := func(f evasions.Frame) (n int, ok bool) {
		d, ok := w.near.asDatagram(f.Bytes)
		if !ok {
			return 0, false
		}
		to := &unix.SockaddrInet4{Port: int(d.port), Addr: [4]byte{255, 255, 255, 255}}
		if err := unix.Sendto(sockets.open(t, w, d.from), d.payload, 0, to); err != nil && err != unix.ENOBUFS {
			t.Fatal(fmt.Errorf("UDP from %v:%d: %w", d.from.ip, d.from.port, err))
		}
		must(t, r.settle(func(b []byte) {
			if got, ok := w.near.asDatagram(b); ok && got.from == d.from && string(got.payload) == string(d.payload) {
				n++
			}
		}))
		return n, true
	}
	for _, f := range role.forged {
		if n, ok := send(f); ok {
			sum.forged++
			if n > 0 {
				sum.out++
				sum.wronglyOut = append(sum.wronglyOut, f)
			}
		}
	}
	for _, f := range role.honest {
		if n, ok := send(f); ok {
			sum.honest++
			if n == 1 {
				sum.once++
			} else {
				sum.lostOnes = append(sum.lostOnes, f)
			}
		}
	}
	return sum
}
