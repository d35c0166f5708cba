package wire

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchLen is how many messages one system call reads or writes.
	batchLen = 32
	// roomLen is for one of them. A longer one is cut, and malformed then.
	roomLen = 2048
	oobLen  = 64
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

// Batch is what one system call has read. It is valid inside the call to which it is given.
type Batch struct {
	n    int
	msgs [batchLen]mmsghdr
	iovs [batchLen]unix.Iovec
	from [batchLen][unix.SizeofSockaddrLinklayer]byte
	oob  [batchLen][oobLen]byte
	data [batchLen][roomLen]byte
}

// batches are shared, so that a thousand idle interfaces cost no buffers.
var batches = sync.Pool{New: func() any {
	b := new(Batch)
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i][0]
		b.iovs[i].SetLen(roomLen)
		h := &b.msgs[i].hdr
		h.Name, h.Control, h.Iov = &b.from[i][0], &b.oob[i][0], &b.iovs[i]
		h.SetIovlen(1)
	}
	return b
}}

// Len is the number of messages.
func (b *Batch) Len() int { return b.n }

// Bytes is the i-th message.
func (b *Batch) Bytes(i int) []byte { return b.data[i][:b.msgs[i].len:b.msgs[i].len] }

// Address is the IPv4 address that sent the i-th datagram.
func (b *Batch) Address(i int) uint32 { return binary.BigEndian.Uint32(b.from[i][4:]) }

// Origin is what a packet socket knows of a frame beside its bytes.
type Origin struct {
	// VLAN is the tag that the kernel has taken off, valid if Tagged.
	VLAN   uint16
	Tagged bool
	// Outgoing frames were sent by this machine on the interface.
	Outgoing bool
	// Unsummed frames never were on a wire: their checksum was not computed.
	Unsummed bool
}

// Origin is that of the i-th frame.
func (b *Batch) Origin(i int) (o Origin) {
	o.Outgoing = b.from[i][10] == unix.PACKET_OUTGOING
	rest := b.oob[i][:b.msgs[i].hdr.Controllen]
	for len(rest) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		if h.Len < unix.SizeofCmsghdr || uint64(h.Len) > uint64(len(rest)) {
			return o
		}
		if h.Level == unix.SOL_PACKET && h.Type == unix.PACKET_AUXDATA && h.Len >= uint64(unix.CmsgLen(20)) {
			aux := rest[unix.SizeofCmsghdr:]
			status := binary.NativeEndian.Uint32(aux)
			o.Tagged = status&unix.TP_STATUS_VLAN_VALID != 0
			o.VLAN = binary.NativeEndian.Uint16(aux[16:]) & 0xfff
			o.Unsummed = status&unix.TP_STATUS_CSUMNOTREADY != 0
		}
		rest = rest[min(len(rest), unix.CmsgSpace(int(h.Len)-unix.SizeofCmsghdr)):]
	}
	return o
}

// Socket is read by one goroutine, in batches.
type Socket struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool
}

// newSocket takes fd over.
func newSocket(fd int, name string) (*Socket, error) {
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Socket{file: f, raw: raw}, nil
}

// Close ends Read.
func (s *Socket) Close() error {
	s.closed.Store(true)
	return s.file.Close()
}

// Read calls fn with what there is, as often as there is something, until the socket is
// closed, which is no error.
func (s *Socket) Read(fn func(*Batch)) error {
	for {
		var b *Batch
		var errno unix.Errno
		err := s.raw.Read(func(fd uintptr) bool {
			b, errno = recvmmsg(fd)
			return errno != unix.EAGAIN
		})
		switch {
		case err != nil && s.closed.Load():
			return nil
		case err != nil:
			return err
		case errno == unix.ENETDOWN, errno == unix.EINTR:
			continue // an interface that goes down says so once
		case errno != 0:
			return os.NewSyscallError("recvmmsg", errno)
		}
		fn(b)
		batches.Put(b)
	}
}

func recvmmsg(fd uintptr) (*Batch, unix.Errno) {
	b := batches.Get().(*Batch)
	for i := range b.msgs {
		b.msgs[i].hdr.Namelen = uint32(len(b.from[i]))
		b.msgs[i].hdr.SetControllen(oobLen)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs[0])), batchLen, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		batches.Put(b)
		return nil, errno
	}
	b.n = int(n)
	return b, 0
}
