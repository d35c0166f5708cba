package matrix

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// path is a way in which a program makes the kernel send a frame.
type path struct {
	// call is what sends, by the socket of a type, typ.
	call string
	typ  int
	// claim is the protocol that the sender names.
	claim int
	// bypass is PACKET_QDISC_BYPASS, vnet PACKET_VNET_HDR, with a header before each frame.
	bypass, vnet bool
	header       vnetHeader
}

// sockPacket is the socket type that packet(7) calls strongly deprecated.
const sockPacket = 10

// The claims: the truth, nothing, and two lies.
const truth = -1

var claims = []int{truth, 0, unix.ETH_P_IP, unix.ETH_P_LLDP}

// paths are all of them. With SOCK_DGRAM the protocol is the frame's type, and no lie
// is possible. write(2) names no destination, which SOCK_DGRAM and SOCK_PACKET want;
// SOCK_PACKET knows no options and no ring, and PACKET_VNET_HDR goes with SOCK_RAW.
func paths() (list []path) {
	for _, call := range calls {
		for _, bypass := range []bool{false, true} {
			for _, vnet := range []bool{false, true} {
				for _, claim := range claims {
					list = append(list, path{call: call, typ: unix.SOCK_RAW, claim: claim, bypass: bypass, vnet: vnet})
				}
			}
			if call != callWrite {
				list = append(list, path{call: call, typ: unix.SOCK_DGRAM, claim: truth, bypass: bypass})
			}
		}
		if call != callWrite && ringVersion(call) < 0 {
			for _, claim := range claims {
				list = append(list, path{call: call, typ: sockPacket, claim: claim})
			}
		}
	}
	return list
}

// kind is the path without its claim.
func (p path) kind() string {
	s := []string{p.call}
	if p.typ != unix.SOCK_RAW {
		s = append(s, map[int]string{unix.SOCK_DGRAM: "SOCK_DGRAM", sockPacket: "SOCK_PACKET"}[p.typ])
	}
	if p.vnet {
		s = append(s, "PACKET_VNET_HDR")
	}
	if p.bypass {
		s = append(s, "bypass")
	}
	return strings.Join(s, ", ")
}

func (p path) String() string {
	return fmt.Sprintf("%s, protocol %s", p.kind(), map[int]string{truth: "true", 0: "0", unix.ETH_P_IP: "IPv4", unix.ETH_P_LLDP: "LLDP"}[p.claim])
}

// some are the paths whose frames look different to the kernel, with every lie.
func some() []path {
	return slices.DeleteFunc(paths(), func(p path) bool {
		return p.vnet || p.typ == sockPacket || p.call != callSendto && p.call != callRing2
	})
}

// device is where frames are sent.
type device struct {
	index int
	name  string
	mac   [6]byte
}

// socket opens the path's socket in the network namespace of the calling thread.
func (p path) socket() (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_PACKET, p.typ|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	for option, on := range map[int]bool{unix.PACKET_QDISC_BYPASS: p.bypass, packetVNETHdr: p.vnet} {
		one := int32(1)
		if on && err == nil {
			err = heard(setsockopt(fd, unix.SOL_PACKET, option, unsafe.Pointer(&one), unsafe.Sizeof(one)))
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", p, err)
	}
	return fd, nil
}

// setsockopt is the system call. A child may be told to make another.
var setsockopt = func(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(value), n, 0)
	return errno
}

const packetVNETHdr = 15 // if_packet.h

// vnetHeader is struct virtio_net_hdr.
type vnetHeader struct {
	flags, gsoType                         uint8
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

// From virtio_net.h.
const (
	vnetNeedsChecksum = 1
	vnetGSOUDP        = 3
	vnetGSOUDPL4      = 5
)

// message is what a system call is given: bytes and address.
type message struct {
	body, to []byte
}

// express says how a frame is sent by the path: ok is false if it cannot be. With SOCK_DGRAM
// the kernel builds the header (eth_header): the device's own address is the source,
// and two protocols make it write the length instead.
func (p path) express(f []byte, d device) (m message, ok bool) {
	if len(f) < 14 {
		return m, false
	}
	typ := binary.BigEndian.Uint16(f[12:])
	protocol := uint16(p.claim)
	if p.claim == truth {
		protocol = typ
	}
	m.body = f
	switch p.typ {
	case sockPacket:
		m.to = make([]byte, 18) // struct sockaddr_pkt
		binary.NativeEndian.PutUint16(m.to, unix.AF_PACKET)
		copy(m.to[2:16], d.name)
		binary.BigEndian.PutUint16(m.to[16:], protocol)
		return m, true
	case unix.SOCK_DGRAM:
		if [6]byte(f[6:12]) != d.mac || typ == unix.ETH_P_802_3 || typ == unix.ETH_P_802_2 {
			return m, false
		}
		m.body = f[14:]
	}
	if p.vnet {
		b, _ := binary.Append(make([]byte, 0, 10+len(m.body)), binary.NativeEndian, p.header)
		m.body = append(b, m.body...)
	}
	m.to = make([]byte, 20) // struct sockaddr_ll
	binary.NativeEndian.PutUint16(m.to, unix.AF_PACKET)
	binary.BigEndian.PutUint16(m.to[2:], protocol)
	binary.NativeEndian.PutUint32(m.to[4:], uint32(d.index))
	m.to[11] = 6
	copy(m.to[12:], f[:6])
	return m, true
}
