package afpacket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is a transit's system calls: their memory and, because a closure costs
// an allocation, the functions that a syscall.RawConn is to call, made once.
type kernel struct {
	t       *transit
	from    *outlet // for transmit
	errno   unix.Errno
	failure error

	sendOne, sendMany func(fd uintptr) bool
	askSelf, askName  func(fd uintptr)

	next int // the first of t.outs that has not been sent
	// Message headers are made once, each with its iovec. Those that need an address or a mark as well get an
	// envelope, until the next fill.
	msgs      []mmsghdr
	iovs      []unix.Iovec
	more      []envelope
	addressed bool
	sa        unix.RawSockaddrLinklayer
	ifr       ifreq
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// envelope is what a message header may point to, beside the frame.
type envelope struct {
	to   unix.RawSockaddrLinklayer
	cmsg struct {
		hdr  unix.Cmsghdr
		mark uint32
		_    uint32 // CMSG_SPACE
	}
}

// ifreq is struct ifreq of netdevice(7), as far as it is used.
type ifreq struct {
	name [unix.IFNAMSIZ]byte
	data [24]byte
}

func (k *kernel) init(t *transit) {
	k.t = t
	k.sendOne, k.sendMany, k.askSelf, k.askName = k.sendto, k.sendmmsg, k.self, k.named
}

// transmit gives t.outs to the kernel and notes in t.errs what it refused.
func (k *kernel) transmit(from *outlet) {
	outs := k.t.outs
	if len(outs) == 0 {
		return
	}
	k.from, k.next, k.failure = from, 0, nil
	var err error
	if len(outs) == 1 && outs[0].mark == 0 {
		err = from.fd.Write(k.sendOne)
	} else {
		k.fill()
		err = from.fd.Write(k.sendMany)
	}
	if err == nil {
		return
	}
	// Closed, or past its deadline: the rest was not sent.
	err = cause(err)
	for _, o := range outs[k.next:] {
		k.fail(o.msg, err)
	}
}

func (k *kernel) fail(msg int, err error) {
	if msg >= 0 && k.t.errs[msg] == nil {
		k.t.errs[msg] = err
	}
}

// address is where a frame goes. With protocol 0 the kernel reads the type from
// the frame itself (packet_parse_headers), so that skb->protocol does not lie.
func address(ifindex int32) unix.RawSockaddrLinklayer {
	return unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Ifindex: ifindex}
}

// unaddressed reports whether the frame may go without an address, which costs the kernel a fifth of a
// send: it leaves by the interface that the socket is bound to. The socket's protocol is none or, if it
// reads all of them, ETH_P_ALL, of which packet_parse_headers makes the same.
func (o *outlet) unaddressed(x *out) bool { return x.ifindex == o.dev.key.ifindex }

// sendto is sendto(2) until no signal disturbs it.
func sendto(fd uintptr, frame []byte, to unsafe.Pointer, size uintptr) unix.Errno {
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(frame))), uintptr(len(frame)),
			unix.MSG_DONTWAIT, uintptr(to), size)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// sendto sends the only frame; false means that the socket's buffer is full.
func (k *kernel) sendto(fd uintptr) bool {
	o := &k.t.outs[0]
	var to unsafe.Pointer
	var size uintptr
	if !k.from.unaddressed(o) {
		k.sa = address(o.ifindex)
		to, size = unsafe.Pointer(&k.sa), unsafe.Sizeof(k.sa)
	}
	switch errno := sendto(fd, o.frame, to, size); errno {
	case unix.EAGAIN:
		return false
	case 0:
	default:
		k.fail(o.msg, os.NewSyscallError("sendto", errno))
	}
	k.next = 1
	return true
}

// sendmmsg sends what is left of the frames. sendmmsg(2) stops at one that
// cannot be sent: its error is noted, and the rest follows.
func (k *kernel) sendmmsg(fd uintptr) bool {
	for k.next < len(k.msgs) {
		rest := k.msgs[k.next:]
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(unsafe.SliceData(rest))), uintptr(len(rest)),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			k.next += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			k.fail(k.t.outs[k.next].msg, os.NewSyscallError("sendmmsg", errno))
			k.next++
		}
	}
	return true
}

// fill makes a message header for each frame. The slices are of the length of
// t.outs before any pointer into them is taken.
func (k *kernel) fill() {
	n := len(k.t.outs)
	if cap(k.msgs) < n {
		k.msgs, k.iovs = make([]mmsghdr, n), make([]unix.Iovec, n)
		for i := range k.msgs {
			k.msgs[i].hdr.Iov = &k.iovs[i]
			k.msgs[i].hdr.SetIovlen(1)
		}
	}
	k.unaddress()
	k.msgs, k.iovs = k.msgs[:n], k.iovs[:n]
	for i := range k.t.outs {
		o := &k.t.outs[i]
		k.iovs[i].Base = unsafe.SliceData(o.frame)
		k.iovs[i].SetLen(len(o.frame))
		if o.mark != 0 || !k.from.unaddressed(o) {
			k.address(i, o)
		}
	}
}

// address gives message i its envelope.
func (k *kernel) address(i int, o *out) {
	if len(k.more) < len(k.msgs) {
		k.more = make([]envelope, len(k.msgs)) // the former ones stay where they are as long as a header points there
	}
	k.addressed = true
	c, h := &k.more[i], &k.msgs[i].hdr
	if !k.from.unaddressed(o) {
		c.to = address(o.ifindex)
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&c.to)), uint32(unsafe.Sizeof(c.to))
	}
	if o.mark != 0 {
		c.cmsg.hdr = unix.Cmsghdr{Level: unix.SOL_SOCKET, Type: unix.SO_MARK}
		c.cmsg.hdr.SetLen(unix.CmsgLen(4))
		c.cmsg.mark = o.mark
		h.Control = (*byte)(unsafe.Pointer(&c.cmsg))
		h.SetControllen(unix.CmsgSpace(4))
	}
}

// unaddress takes the envelopes from the headers again.
func (k *kernel) unaddress() {
	if !k.addressed {
		return
	}
	for i := range k.msgs {
		h := &k.msgs[i].hdr
		h.Name, h.Namelen, h.Control = nil, 0, nil
		h.SetControllen(0)
	}
	k.addressed = false
}

// forget drops the pointers to other people's frames.
func (k *kernel) forget() {
	if k.from = nil; len(k.msgs) == 0 {
		return
	}
	clear(k.iovs)
	k.unaddress()
	k.msgs, k.iovs = k.msgs[:0], k.iovs[:0]
}

// identify asks for name, address and index of the interface that the outlet's
// socket is bound to.
func (k *kernel) identify(o *outlet) (port, error) {
	if err := o.fd.Control(k.askSelf); err != nil {
		return port{}, cause(err)
	}
	if k.errno != 0 {
		return port{}, explain(k.errno)
	}
	if err := ethernet(k.sa.Hatype); err != nil {
		return port{}, err
	}
	p := port{ifindex: k.sa.Ifindex, mac: [6]byte(k.sa.Addr[:6])}
	// An unchanged name is not copied to the heap again.
	name := k.ifr.name[:max(0, bytes.IndexByte(k.ifr.name[:], 0))]
	if at := o.at.Load(); at != nil && at.name == string(name) {
		p.name = at.name
	} else {
		p.name = string(name)
	}
	return p, nil
}

func (k *kernel) self(fd uintptr) {
	size := uint32(unsafe.Sizeof(k.sa))
	_, _, k.errno = unix.RawSyscall(unix.SYS_GETSOCKNAME, fd, uintptr(unsafe.Pointer(&k.sa)), uintptr(unsafe.Pointer(&size)))
	if k.errno == 0 {
		binary.NativeEndian.PutUint32(k.ifr.data[:], uint32(k.sa.Ifindex))
		k.errno = k.ioctl(fd, unix.SIOCGIFNAME)
	}
}

// find asks for index and address of the interface of that name.
func (k *kernel) find(o *outlet, name string) (port, error) {
	if len(name) >= unix.IFNAMSIZ {
		return port{}, unix.ENODEV
	}
	k.ifr = ifreq{}
	copy(k.ifr.name[:], name)
	if err := o.fd.Control(k.askName); err != nil {
		return port{}, cause(err)
	}
	if k.errno != 0 {
		return port{}, k.errno
	}
	return port{ifindex: k.sa.Ifindex, mac: [6]byte(k.sa.Addr[:6])}, ethernet(k.sa.Hatype)
}

func (k *kernel) named(fd uintptr) {
	if k.errno = k.ioctl(fd, unix.SIOCGIFINDEX); k.errno != 0 {
		return
	}
	k.sa.Ifindex = int32(binary.NativeEndian.Uint32(k.ifr.data[:]))
	if k.errno = k.ioctl(fd, unix.SIOCGIFHWADDR); k.errno == 0 {
		k.sa.Hatype = binary.NativeEndian.Uint16(k.ifr.data[:])
		copy(k.sa.Addr[:6], k.ifr.data[2:])
	}
}

func (k *kernel) ioctl(fd, request uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(&k.ifr)))
	return errno
}

// ethernet refuses an interface whose frames have another header: they would be
// misread.
func ethernet(hatype uint16) error {
	if hatype != unix.ARPHRD_ETHER && hatype != unix.ARPHRD_LOOPBACK {
		return fmt.Errorf("%w: not an Ethernet interface (ARPHRD %d), its frames cannot be classified", unix.EAFNOSUPPORT, hatype)
	}
	return nil
}

// cause is what a RawConn's error means to the user of a net.PacketConn.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, os.ErrClosed) || err.Error() == "use of closed file" {
		return net.ErrClosed
	}
	return err
}

func netnsCookie(fd int) (uint64, error) {
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("SO_NETNS_COOKIE: %w (Linux 5.14 has it)", err)
	}
	return c, nil
}

// control runs fn on a descriptor that cannot be closed meanwhile.
func control(fd syscall.RawConn, fn func(fd int) error) (err error) {
	cerr := fd.Control(func(fd uintptr) { err = fn(int(fd)) })
	return errors.Join(cerr, err)
}

// interfaceName and interfaceMTU ask in the namespace of any socket fd.
func interfaceName(fd, index int) (string, error) {
	var k kernel
	binary.NativeEndian.PutUint32(k.ifr.data[:], uint32(index))
	if errno := k.ioctl(uintptr(fd), unix.SIOCGIFNAME); errno != 0 {
		return "", os.NewSyscallError("SIOCGIFNAME", errno)
	}
	return unix.ByteSliceToString(k.ifr.name[:]), nil
}

func interfaceMTU(fd int, name string) (int, error) {
	var k kernel
	copy(k.ifr.name[:], name)
	if errno := k.ioctl(uintptr(fd), unix.SIOCGIFMTU); errno != 0 {
		return 0, os.NewSyscallError("SIOCGIFMTU", errno)
	}
	return int(binary.NativeEndian.Uint32(k.ifr.data[:])), nil
}
