package rows

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// byXDP sends by an AF_XDP socket in copy mode, from the device's first queue.
func byXDP(ifi *net.Interface, frames [][]byte) error {
	s := &xsk{fd: -1}
	defer s.close()
	if err := s.open(ifi.Index); err != nil {
		return fmt.Errorf("AF_XDP: %w", err)
	}
	if err := s.send(frames); err != nil {
		return fmt.Errorf("AF_XDP: %w", err)
	}
	return nil
}

// xsk is such a socket, for as many frames as it has slots.
type xsk struct {
	fd       int
	umem, tx []byte
	off      unix.XDPRingOffset
}

const slot, slots = 2048, 64

func (s *xsk) open(ifindex int) (err error) {
	if s.fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if s.umem, err = unix.Mmap(-1, 0, slot*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE); err != nil {
		return err
	}
	memory := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&s.umem[0]))), Len: slot * slots, Size: slot}
	size := uint32(slots)
	err = errors.Join(
		s.option(unix.XDP_UMEM_REG, unsafe.Pointer(&memory), unsafe.Sizeof(memory)),
		s.option(unix.XDP_UMEM_FILL_RING, unsafe.Pointer(&size), unsafe.Sizeof(size)),
		s.option(unix.XDP_UMEM_COMPLETION_RING, unsafe.Pointer(&size), unsafe.Sizeof(size)),
		s.option(unix.XDP_TX_RING, unsafe.Pointer(&size), unsafe.Sizeof(size)),
	)
	if err != nil {
		return err
	}
	var off unix.XDPMmapOffsets
	n := uint32(unsafe.Sizeof(off))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&n)), 0); errno != 0 {
		return errno
	}
	s.off = off.Tx
	if s.tx, err = unix.Mmap(s.fd, unix.XDP_PGOFF_TX_RING, int(s.off.Desc)+16*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	// The queue may belong for a moment longer to a socket that was closed.
	for range 1000 {
		err = unix.Bind(s.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifindex)})
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

func (s *xsk) option(option int, value unsafe.Pointer, n uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(s.fd), unix.SOL_XDP, uintptr(option), uintptr(value), n, 0); errno != 0 {
		return fmt.Errorf("option %d: %w", option, errno)
	}
	return nil
}

// send waits until the kernel has taken the frames.
func (s *xsk) send(frames [][]byte) error {
	if len(frames) > slots {
		return fmt.Errorf("%d frames, more than %d", len(frames), slots)
	}
	for i, f := range frames {
		copy(s.umem[i*slot:], f)
		*(*unix.XDPDesc)(unsafe.Pointer(&s.tx[s.off.Desc+16*uint64(i)])) = unix.XDPDesc{Addr: uint64(i * slot), Len: uint32(len(f))}
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&s.tx[s.off.Producer])), uint32(len(frames)))
	for range 1000 {
		err := unix.Sendto(s.fd, nil, unix.MSG_DONTWAIT, nil)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if atomic.LoadUint32((*uint32)(unsafe.Pointer(&s.tx[s.off.Consumer]))) == uint32(len(frames)) {
			return nil
		}
	}
	return errors.New("the kernel does not take the frames")
}

func (s *xsk) close() {
	for _, m := range [][]byte{s.umem, s.tx} {
		if m != nil {
			_ = unix.Munmap(m) // it was mapped
		}
	}
	if s.fd >= 0 {
		unix.Close(s.fd)
	}
}
