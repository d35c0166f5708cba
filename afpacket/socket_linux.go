package afpacket

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sendSocket is a packet socket that only sends: bound to protocol 0 it reads nothing. It is kept away from
// Go's poller, which the kernel would wake for each frame that leaves the socket's buffer. That costs a sender
// as much as a third of a send, and whoever has the next CPU a context switch. So who finds the buffer
// full, which hardly anybody does, waits in poll(2).
type sendSocket struct {
	using    sync.RWMutex // held for reading while fd is used
	fd       int
	closed   atomic.Bool
	deadline atomic.Int64 // since epoch, 0 for none
}

var _ syscall.RawConn = (*sendSocket)(nil)

// sender makes a socket that is bound to ifi.
func sender(ifi *net.Interface) (*sendSocket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, explain(os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
		unix.Close(fd)
		return nil, explain(os.NewSyscallError("bind", err))
	}
	return &sendSocket{fd: fd}, nil
}

// Control calls f with the descriptor, which is not closed meanwhile.
func (s *sendSocket) Control(f func(fd uintptr)) error {
	s.using.RLock()
	defer s.using.RUnlock()
	if s.closed.Load() {
		return net.ErrClosed
	}
	f(uintptr(s.fd))
	return nil
}

// Read is never possible.
func (s *sendSocket) Read(func(fd uintptr) bool) error { return unix.EOPNOTSUPP }

// send sends one frame by the interface that the socket is bound to, and waits as Write does. Go's scheduler is not told:
// the kernel does not wait here (MSG_DONTWAIT), and telling takes a tenth of a send.
func (s *sendSocket) send(frame []byte) error {
	s.using.RLock()
	if s.closed.Load() || s.deadline.Load() != 0 {
		s.using.RUnlock()
		return s.sendWaiting(frame)
	}
	errno := sendto(uintptr(s.fd), frame, nil, 0)
	s.using.RUnlock()
	switch errno {
	case 0:
		return nil
	case unix.EAGAIN:
		return s.sendWaiting(frame)
	}
	return os.NewSyscallError("sendto", errno)
}

func (s *sendSocket) sendWaiting(frame []byte) (err error) {
	waited := s.Write(func(fd uintptr) bool {
		errno := sendto(fd, frame, nil, 0)
		if errno != 0 {
			err = os.NewSyscallError("sendto", errno)
		} else {
			err = nil
		}
		return errno != unix.EAGAIN
	})
	if waited != nil {
		return waited
	}
	return err
}

// Write calls f until it returns true, whenever the socket has room again. It returns net.ErrClosed or
// os.ErrDeadlineExceeded if that is in vain.
func (s *sendSocket) Write(f func(fd uintptr) bool) error {
	s.using.RLock()
	defer s.using.RUnlock()
	for early := false; ; {
		if s.closed.Load() {
			return net.ErrClosed
		}
		end := s.deadline.Load()
		if end != 0 && int64(time.Since(epoch)) >= end {
			return os.ErrDeadlineExceeded
		}
		if f(uintptr(s.fd)) {
			return nil
		}
		if early {
			// The socket has room, and what f waits for is another thing: a slot of a ring while the device's queue is stopped.
			time.Sleep(time.Millisecond)
		}
		early = s.awaitRoom(end)
	}
}

// patience is how long awaitRoom may miss a Close or a new deadline.
const patience = 10 * time.Millisecond

// awaitRoom says whether there was room at once.
func (s *sendSocket) awaitRoom(end int64) (early bool) {
	wait := patience
	if end != 0 {
		wait = max(0, min(wait, time.Duration(end)-time.Since(epoch)))
	}
	ts := unix.NsecToTimespec(int64(wait))
	// Whatever comes of it, f is asked next.
	began := time.Now()
	n, _ := unix.Ppoll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, &ts, nil)
	return n > 0 && time.Since(began) < 100*time.Microsecond
}

// SetWriteDeadline bounds Write, also one that waits; the zero time is none.
func (s *sendSocket) SetWriteDeadline(t time.Time) error {
	if s.closed.Load() {
		return net.ErrClosed
	}
	var end int64
	if !t.IsZero() {
		end = max(1, int64(t.Sub(epoch)))
	}
	s.deadline.Store(end)
	return nil
}

// Close ends calls under way and closes the socket. To close it again is nothing: of two that close a Conn at one
// time each closes a part, and rx tells the second one.
func (s *sendSocket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.using.Lock()
	defer s.using.Unlock()
	return os.NewSyscallError("close", unix.Close(s.fd))
}
