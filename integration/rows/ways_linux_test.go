package rows

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/integration/lab"
)

// A way is a kind of socket that sends frames as they are, without a guard in process.
type way struct {
	name string
	send func(ifi *net.Interface, frames [][]byte) error
}

// ways are those that differ in which hooks of the sender's own device they pass.
var ways = []way{
	{"packet socket", bySocket(false)},
	{"packet socket, bypass", bySocket(true)},
	{"TX_RING", byRing(false)},
	{"TX_RING, bypass", byRing(true)},
	{"AF_XDP", byXDP},
}

func bySocket(bypass bool) func(*net.Interface, [][]byte) error {
	return func(ifi *net.Interface, frames [][]byte) error {
		c, err := afpacket.Listen(ifi, afpacket.Raw, 0, &afpacket.Config{Bypass: bypass})
		if err != nil {
			return err
		}
		defer c.Close()
		for _, f := range frames {
			// That it is refused is not the test's concern but the sender's.
			if _, err := c.WriteTo(f, &packet.Addr{HardwareAddr: ifi.HardwareAddr}); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
		return nil
	}
}

func byRing(bypass bool) func(*net.Interface, [][]byte) error {
	return func(ifi *net.Interface, frames [][]byte) error {
		r, err := afpacket.OpenRing(ifi, len(frames), &afpacket.Config{Bypass: bypass})
		if err != nil {
			return err
		}
		for _, f := range frames {
			if _, err := r.Write(f); err != nil {
				return errors.Join(err, r.Close())
			}
		}
		return errors.Join(r.Flush(), r.Close())
	}
}

// by sends frames by the device at end i of a pair.
func (w way) by(t testing.TB, p *lab.Pair, i int, frames ...[]byte) {
	t.Helper()
	if err := p.Do(i, func() error { return w.send(p.Ifi[i], frames) }); err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
}

// byXDP sends by an AF_XDP socket in copy mode, from the device's first queue.
func byXDP(ifi *net.Interface, frames [][]byte) error {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("AF_XDP: %w", err)
	}
	defer unix.Close(fd)
	const slot, slots = 2048, 64
	if len(frames) > slots {
		return fmt.Errorf("%d frames, more than %d", len(frames), slots)
	}
	umem, err := unix.Mmap(-1, 0, slot*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(umem)
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&umem[0]))), Len: slot * slots, Size: slot}
	size := uint32(slots)
	var off unix.XDPMmapOffsets
	n := uint32(unsafe.Sizeof(off))
	err = errors.Join(
		xdpOption(fd, unix.XDP_UMEM_REG, unsafe.Pointer(&reg), unsafe.Sizeof(reg)),
		xdpOption(fd, unix.XDP_UMEM_FILL_RING, unsafe.Pointer(&size), 4),
		xdpOption(fd, unix.XDP_UMEM_COMPLETION_RING, unsafe.Pointer(&size), 4),
		xdpOption(fd, unix.XDP_TX_RING, unsafe.Pointer(&size), 4),
	)
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, unix.XDP_MMAP_OFFSETS,
		uintptr(unsafe.Pointer(&off)), uintptr(unsafe.Pointer(&n)), 0); errno != 0 || err != nil {
		return fmt.Errorf("AF_XDP rings: %w, %w", err, errno)
	}
	tx, err := unix.Mmap(fd, unix.XDP_PGOFF_TX_RING, int(off.Tx.Desc)+16*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(tx)
	// The queue may belong for a moment longer to a socket that was closed.
	for range 1000 {
		if err = unix.Bind(fd, &unix.SockaddrXDP{Flags: unix.XDP_COPY, Ifindex: uint32(ifi.Index)}); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("bind an AF_XDP socket: %w", err)
	}
	for i, f := range frames {
		copy(umem[i*slot:], f)
		*(*unix.XDPDesc)(unsafe.Pointer(&tx[off.Tx.Desc+16*uint64(i)])) = unix.XDPDesc{Addr: uint64(i * slot), Len: uint32(len(f))}
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&tx[off.Tx.Producer])), uint32(len(frames)))
	taken := (*uint32)(unsafe.Pointer(&tx[off.Tx.Consumer]))
	for range 1000 {
		err := unix.Sendto(fd, nil, unix.MSG_DONTWAIT, nil)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("AF_XDP: %w", err)
		}
		if atomic.LoadUint32(taken) == uint32(len(frames)) {
			return nil
		}
	}
	return errors.New("AF_XDP: the kernel does not take the frames")
}

func xdpOption(fd, option int, value unsafe.Pointer, n uintptr) error {
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(option), uintptr(value), n, 0); errno != 0 {
		return fmt.Errorf("AF_XDP option %d: %w", option, errno)
	}
	return nil
}
