package matrix

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls.
const (
	callSendto     = "sendto"
	callSendmsg    = "sendmsg"
	callSendmmsg   = "sendmmsg"
	callWrite      = "write"
	callURing      = "io_uring"
	callURingAsync = "io_uring worker"
	callRing1      = "TX_RING 1"
	callRing2      = "TX_RING 2"
	callRing3      = "TX_RING 3"
	callXDP        = "AF_XDP" // none of calls: no egress hook sees it
)

var calls = []string{callSendto, callSendmsg, callSendmmsg, callWrite, callURing, callURingAsync, callRing1, callRing2, callRing3}

// sender sends frames by a path.
type sender struct {
	path path
	// send says of each of at most maxBatch frames whether the path cannot send such a
	// one. That it was refused is no error.
	send  func(batch [][]byte) (unsendable []bool, err error)
	close func()
}

// maxBatch frames fit into every queue on their way: a ring of ours, the 256 of a
// veth device (VETH_RING_SIZE), the ring buffer of the receiver.
const maxBatch = 64

// over makes a sender of a socket, which it closes, be it its own or given.
func (p path) over(fd int, d device) (s *sender, err error) {
	s = &sender{path: p, close: func() { unix.Close(fd) }}
	var transmit func([]message) []error
	switch version := ringVersion(p.call); {
	case version >= 0:
		r, err := newRing(fd, version)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		s.close = func() { unix.Munmap(r.slots); unix.Close(fd) }
		transmit = each(r.send)
	case p.call == callSendto:
		transmit = each(func(m message) error { return sendto(fd, m) })
	case p.call == callSendmsg:
		transmit = each(func(m message) error { return sendmsg(fd, m) })
	case p.call == callSendmmsg:
		transmit = func(list []message) []error { return sendmmsg(fd, list) }
	case p.call == callWrite:
		w := &writer{fd: fd, index: d.index}
		transmit = each(w.send)
	case p.call == callURing, p.call == callURingAsync:
		transmit = func(list []message) []error { return uringSend(fd, list, p.call == callURingAsync) }
	}
	s.send = func(batch [][]byte) ([]bool, error) {
		unsendable := make([]bool, len(batch))
		var list []message
		var index []int
		for i, f := range batch {
			m, ok := p.express(f, d)
			if unsendable[i] = !ok; ok {
				list, index = append(list, m), append(index, i)
			}
		}
		for i, err := range transmit(list) {
			switch {
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMSGSIZE), errors.Is(err, unix.ENOMEM): // the last from validate_xmit_skb
				unsendable[index[i]] = true
			case err != nil && !errors.Is(err, unix.ENOBUFS): // which a funnelled sender hears whatever becomes of its frame
				return nil, fmt.Errorf("%s: %w", p, err)
			}
		}
		return unsendable, nil
	}
	return s, nil
}

func each(send func(message) error) func([]message) []error {
	return func(list []message) []error {
		errs := make([]error, len(list))
		for i, m := range list {
			errs[i] = send(m)
		}
		return errs
	}
}

func sendto(fd int, m message) error {
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(m.body))), uintptr(len(m.body)),
		0, uintptr(unsafe.Pointer(unsafe.SliceData(m.to))), uintptr(len(m.to)))
	return heard(errno)
}

// header is a message as sendmsg and its kin want it.
func (m message) header() *unix.Msghdr {
	iov := &unix.Iovec{Base: unsafe.SliceData(m.body), Len: uint64(len(m.body))}
	return &unix.Msghdr{Name: unsafe.SliceData(m.to), Namelen: uint32(len(m.to)), Iov: iov, Iovlen: 1}
}

func sendmsg(fd int, m message) error {
	h := m.header()
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)), 0)
	runtime.KeepAlive(h)
	return heard(errno)
}

// sendmmsg sends many frames in one call, which ends at the first that is refused. Of an
// error the caller hears only if that was the first (__sys_sendmmsg).
func sendmmsg(fd int, list []message) []error {
	type mmsghdr struct {
		unix.Msghdr
		n uint32
		_ uint32
	}
	errs, headers := make([]error, len(list)), make([]mmsghdr, len(list))
	for i, m := range list {
		headers[i].Msghdr = *m.header()
	}
	for i := 0; i < len(list); {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[i])), uintptr(len(list)-i), 0, 0, 0)
		if errno != 0 {
			errs[i], n = errno, 1
		}
		i += int(n)
	}
	return errs
}

// writer writes to a bound socket: the claim is what it is bound to.
type writer struct {
	fd, index int
	bound     bool
	protocol  [2]byte
}

func (w *writer) send(m message) error {
	if p := [2]byte(m.to[2:4]); !w.bound || p != w.protocol {
		to := unix.RawSockaddrLinklayer{Family: unix.AF_PACKET, Protocol: *(*uint16)(unsafe.Pointer(&p)), Ifindex: int32(w.index)}
		if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(w.fd), uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to)); errno != 0 {
			return fmt.Errorf("bind: %w", errno)
		}
		w.bound, w.protocol = true, p
	}
	_, err := unix.Write(w.fd, m.body)
	return err
}

func heard(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
