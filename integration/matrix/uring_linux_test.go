package matrix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// uring is an io_uring of maxBatch entries. It is made once a process.
type uring struct {
	mu       sync.Mutex
	fd       int
	rings    []byte // both, since Linux 5.4
	entries  []byte
	sq, cq   ringOffsets
	sqMask   uint32
	cqMask   uint32
	sqArray  uint32
	cqeArray uint32
}

// ringOffsets is where head and tail are.
type ringOffsets struct{ head, tail uint32 }

// From io_uring.h.
const (
	ioringOpSendmsg     = 9
	ioringOpURingCmd    = 46
	iosqeAsync          = 1 << 4
	ioringEnterGetevent = 1
	ioringOffSQEs       = 0x10000000
	ioringSQE           = 64
	ioringCQE           = 16

	socketURingOpSetsockopt = 3
)

var theURing = sync.OnceValues(func() (*uring, error) {
	return newURing(func(entries int, params []byte) (int, unix.Errno) {
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&params[0])), 0)
		return int(fd), errno
	})
})

// newURing makes one by a system call.
func newURing(setup func(entries int, params []byte) (int, unix.Errno)) (*uring, error) {
	var params [120]byte // struct io_uring_params
	fd, errno := setup(maxBatch, params[:])
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup (kernel.io_uring_disabled?): %w", errno)
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(params[at:]) }
	const sqOff, cqOff = 40, 80
	r := &uring{fd: fd, sqArray: u32(sqOff + 24), cqeArray: u32(cqOff + 20)}
	r.sq, r.cq = ringOffsets{u32(sqOff), u32(sqOff + 4)}, ringOffsets{u32(cqOff), u32(cqOff + 4)}
	size := max(r.sqArray+4*u32(0), r.cqeArray+ioringCQE*u32(4))
	var err error
	if r.rings, err = unix.Mmap(r.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, err
	}
	if r.entries, err = unix.Mmap(r.fd, ioringOffSQEs, ioringSQE*maxBatch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return nil, err
	}
	r.sqMask, r.cqMask = *r.word(u32(sqOff + 8)), *r.word(u32(cqOff + 8))
	return r, nil
}

func (r *uring) word(at uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[at])) }

// uringSend submits all frames at once and waits for each: by a worker, if async.
func uringSend(fd int, list []message, async bool) []error {
	errs := make([]error, len(list))
	r, err := theURing()
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		err = r.send(fd, list, async, errs)
	}
	for i := range errs {
		if err != nil {
			errs[i] = err
		}
	}
	return errs
}

func (r *uring) send(fd int, list []message, async bool, errs []error) error {
	var pin runtime.Pinner // the kernel has addresses that Go does not see
	defer pin.Unpin()
	tail := atomic.LoadUint32(r.word(r.sq.tail))
	for i, m := range list {
		h := m.header()
		pin.Pin(h)
		at := (tail + uint32(i)) & r.sqMask
		e := r.entries[at*ioringSQE:][:ioringSQE]
		clear(e)
		e[0] = ioringOpSendmsg
		if async {
			e[1] = iosqeAsync
		}
		binary.NativeEndian.PutUint32(e[4:], uint32(fd))
		binary.NativeEndian.PutUint64(e[16:], uint64(uintptr(unsafe.Pointer(h))))
		binary.NativeEndian.PutUint32(e[24:], 1)
		binary.NativeEndian.PutUint64(e[32:], uint64(i))
		*r.word(r.sqArray + 4*at) = at
	}
	atomic.StoreUint32(r.word(r.sq.tail), tail+uint32(len(list)))
	for done, submit := 0, len(list); done < len(list); {
		n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(len(list)-done), ioringEnterGetevent, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
		if errno == 0 {
			submit -= int(n)
		}
		done += r.reap(errs)
	}
	return nil
}

// setsockopt sets an option of a socket (Linux 6.7).
func (r *uring) setsockopt(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(value)
	at := atomic.LoadUint32(r.word(r.sq.tail))
	e := r.entries[(at&r.sqMask)*ioringSQE:][:ioringSQE]
	clear(e)
	e[0] = ioringOpURingCmd
	binary.NativeEndian.PutUint32(e[4:], uint32(fd))
	binary.NativeEndian.PutUint32(e[8:], socketURingOpSetsockopt)
	binary.NativeEndian.PutUint32(e[16:], uint32(level))
	binary.NativeEndian.PutUint32(e[20:], uint32(option))
	binary.NativeEndian.PutUint32(e[44:], uint32(n))
	binary.NativeEndian.PutUint64(e[48:], uint64(uintptr(value)))
	*r.word(r.sqArray + 4*(at&r.sqMask)) = at & r.sqMask
	atomic.StoreUint32(r.word(r.sq.tail), at+1)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, ioringEnterGetevent, 0, 0)
		if errno == 0 {
			break
		}
		if errno != unix.EINTR {
			return errno
		}
	}
	var errs [1]error
	r.reap(errs[:])
	var errno unix.Errno
	errors.As(errs[0], &errno)
	return errno
}

// reap takes what is completed.
func (r *uring) reap(errs []error) (n int) {
	head, tail := atomic.LoadUint32(r.word(r.cq.head)), atomic.LoadUint32(r.word(r.cq.tail))
	for ; head != tail; head++ {
		e := r.rings[r.cqeArray+ioringCQE*(head&r.cqMask):]
		if result := int32(binary.NativeEndian.Uint32(e[8:])); result < 0 {
			errs[binary.NativeEndian.Uint64(e)] = unix.Errno(-result)
		}
		n++
	}
	atomic.StoreUint32(r.word(r.cq.head), head)
	return n
}
