package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ServerPort is the one to which requests go (RFC 2131, 4.1).
const ServerPort = 67

// UDP opens the socket that speaks to servers: it reads BOOTREPLYs to any address of this
// machine, and writes from the one that it is told.
func UDP() (*Socket, error) {
	fd, err := udp()
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("UDP port 67: %w: another DHCP server or relay agent runs here; end it", err)
	}
	if err != nil {
		return nil, fmt.Errorf("UDP port 67: %w", err)
	}
	return newSocket(fd, "udp:67")
}

func udp() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// Clients' own messages arrive here too: op is 8 bytes behind the UDP header's begin.
	err = attach(fd, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 8, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 2, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
		bpf.RetConstant{Val: 0xffff},
	})
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) // the default is less, and works
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, receiveBuffer)
	return fd, os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrInet4{Port: ServerPort}))
}

// Outbox collects datagrams to servers and sends them by one system call. It belongs to one
// goroutine.
type Outbox struct {
	s    *Socket
	n    int
	msgs [batchLen]mmsghdr
	iovs [batchLen]unix.Iovec
	to   [batchLen]unix.RawSockaddrInet4
	from [batchLen]pktinfo
}

// pktinfo is a control message that names the source address (ip(7), IP_PKTINFO).
type pktinfo struct {
	hdr  unix.Cmsghdr
	info unix.Inet4Pktinfo
	_    uint32 // CMSG_SPACE
}

var outboxes = sync.Pool{New: func() any {
	o := new(Outbox)
	for i := range o.msgs {
		o.from[i].hdr = unix.Cmsghdr{Level: unix.IPPROTO_IP, Type: unix.IP_PKTINFO}
		o.from[i].hdr.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		o.to[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: portOf(ServerPort)}
		h := &o.msgs[i].hdr
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&o.to[i])), unix.SizeofSockaddrInet4
		h.Control, h.Iov = (*byte)(unsafe.Pointer(&o.from[i])), &o.iovs[i]
		h.SetControllen(int(unsafe.Sizeof(o.from[i])))
		h.SetIovlen(1)
	}
	return o
}}

// portOf is a port in network byte order.
func portOf(p uint16) (v uint16) {
	return binary.NativeEndian.Uint16([]byte{byte(p >> 8), byte(p)})
}

// Outbox is one that writes on s; Done gives it back.
func (s *Socket) Outbox() *Outbox {
	o := outboxes.Get().(*Outbox)
	o.s, o.n = s, 0
	return o
}

// Done sends what is left.
func (o *Outbox) Done(failed func(error)) {
	o.flush(failed)
	o.s = nil
	outboxes.Put(o)
}

// Add takes a datagram, which the caller leaves alone until Done.
func (o *Outbox) Add(b []byte, from, to uint32, failed func(error)) {
	if o.n == batchLen {
		o.flush(failed)
	}
	i := o.n
	o.n++
	o.iovs[i].Base = &b[0]
	o.iovs[i].SetLen(len(b))
	binary.BigEndian.PutUint32(o.to[i].Addr[:], to)
	binary.BigEndian.PutUint32(o.from[i].info.Spec_dst[:], from)
}

// flush tells of each datagram that the kernel refused.
func (o *Outbox) flush(failed func(error)) {
	at := 0
	for at < o.n {
		var n uintptr
		var errno unix.Errno
		err := o.s.raw.Write(func(fd uintptr) bool {
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&o.msgs[at])), uintptr(o.n-at), unix.MSG_DONTWAIT, 0, 0)
			return errno != unix.EAGAIN
		})
		switch {
		case err != nil:
			failed(err)
			at = o.n
		case errno == unix.EINTR:
		case errno != 0:
			failed(os.NewSyscallError("sendmmsg", errno))
			at++
		default:
			at += int(n)
		}
	}
	o.n = 0
}
