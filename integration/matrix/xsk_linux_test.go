package matrix

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xsk is an AF_XDP socket in copy mode that sends from a device's first queue.
type xsk struct {
	fd             int
	umem           []byte
	tx, done       []byte
	txOff, doneOff unix.XDPRingOffset
	produced       uint32
}

// newXSK opens a socket in the network namespace of the calling thread. The queue may
// still belong to a socket that was closed: that is cleared by a kernel worker.
func newXSK(ifindex int) (x *xsk, err error) {
	for range 1000 {
		if x, err = openXSK(ifindex); !errors.Is(err, unix.EBUSY) {
			return x, err
		}
		time.Sleep(time.Millisecond)
	}
	return x, err
}

func openXSK(ifindex int) (*xsk, error) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("AF_XDP: %w", err)
	}
	x := &xsk{fd: fd}
	if err := x.setUp(ifindex); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// setUp registers memory, makes the rings and binds the socket.
func (x *xsk) setUp(ifindex int) (err error) {
	if x.umem, err = unix.Mmap(-1, 0, slot*maxBatch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE); err != nil {
		return err
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&x.umem[0]))), Len: slot * maxBatch, Size: slot}
	if err := x.set(unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)); err != nil {
		return fmt.Errorf("XDP_UMEM_REG: %w", err)
	}
	entries := uint32(maxBatch)
	for _, option := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_TX_RING} {
		if err := x.set(option, unsafe.Pointer(&entries), unsafe.Sizeof(entries)); err != nil {
			return fmt.Errorf("AF_XDP ring %d: %w", option, err)
		}
	}
	var off unix.XDPMmapOffsets
	n := uint32(unsafe.Sizeof(off))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(x.fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&n)), 0); errno != 0 {
		return fmt.Errorf("XDP_MMAP_OFFSETS: %w", errno)
	}
	x.txOff, x.doneOff = off.Tx, off.Cr
	if x.tx, err = unix.Mmap(x.fd, unix.XDP_PGOFF_TX_RING, int(off.Tx.Desc)+16*maxBatch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	if x.done, err = unix.Mmap(x.fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, int(off.Cr.Desc)+8*maxBatch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	if err := unix.Bind(x.fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifindex)}); err != nil {
		return fmt.Errorf("bind an AF_XDP socket: %w", err)
	}
	return nil
}

func (x *xsk) set(option int, value unsafe.Pointer, n uintptr) error {
	return heard(setsockopt(x.fd, unix.SOL_XDP, option, value, n))
}

func (x *xsk) close() {
	for _, m := range [][]byte{x.tx, x.done, x.umem} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	unix.Close(x.fd)
}

// send sends a frame, once there is room: a place in the completion ring is filled when the
// kernel has freed what was sent, at the other end.
func (x *xsk) send(frame []byte) error {
	word := func(m []byte, at uint64) *uint32 { return (*uint32)(unsafe.Pointer(&m[at])) }
	deadline := time.Now().Add(10 * time.Second)
	for {
		completed := atomic.LoadUint32(word(x.done, x.doneOff.Producer))
		atomic.StoreUint32(word(x.done, x.doneOff.Consumer), completed)
		if x.produced-completed < maxBatch {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("AF_XDP: no frame is completed in 10 s")
		}
		time.Sleep(100 * time.Microsecond)
	}
	at := uint64(x.produced%maxBatch) * slot
	copy(x.umem[at:at+slot], frame)
	*(*unix.XDPDesc)(unsafe.Pointer(&x.tx[x.txOff.Desc+16*uint64(x.produced%maxBatch)])) = unix.XDPDesc{Addr: at, Len: uint32(len(frame))}
	x.produced++
	atomic.StoreUint32(word(x.tx, x.txOff.Producer), x.produced)
	for atomic.LoadUint32(word(x.tx, x.txOff.Consumer)) != x.produced {
		err := unix.Sendto(x.fd, nil, unix.MSG_DONTWAIT, nil)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("AF_XDP: %w", err)
		}
		if time.Now().After(deadline) {
			return errors.New("AF_XDP: the frame is not sent in 10 s")
		}
	}
	return nil
}
