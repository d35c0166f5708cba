package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender sends one frame again and again on a packet socket of its own.
type sender interface {
	send(n int) error
	Close() error
}

// socket is a packet socket that is bound to an interface, with the frame's own protocol.
type socket struct {
	fd    int
	frame []byte
}

// openSocket is called in the interface's namespace.
func openSocket(ifindex int, frame []byte) (socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, fmt.Errorf("packet socket: %w", err)
	}
	s := socket{fd, frame}
	// Protocol is in network byte order, as the frame has it.
	err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: *(*uint16)(unsafe.Pointer(&frame[12]))})
	if err == nil {
		// Nothing is to be received.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	}
	if err != nil {
		s.Close()
		return socket{}, fmt.Errorf("packet socket: %w", err)
	}
	return s, nil
}

func (s socket) Close() error { return unix.Close(s.fd) }

// plain sends by sendto(2), a system call each.
type plain struct{ socket }

func (s plain) send(n int) error {
	p, l := uintptr(unsafe.Pointer(&s.frame[0])), uintptr(len(s.frame))
	for range n {
		if _, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), p, l, 0, 0, 0); errno != 0 && errno != unix.ENOBUFS {
			return os.NewSyscallError("sendto", errno)
		}
	}
	runtime.KeepAlive(s.frame)
	return nil
}

// ring sends by PACKET_TX_RING, as many frames a system call as there are slots.
type ring struct {
	socket
	mem  []byte
	next int
}

const (
	slots, slotSize = 256, 256
	frameOffset     = 32 // TPACKET2_HDRLEN without the sockaddr_ll
)

func newRing(s socket) (*ring, error) {
	req := unix.TpacketReq{Block_size: 1 << 16, Block_nr: slots * slotSize >> 16, Frame_size: slotSize, Frame_nr: slots}
	err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2)
	if err == nil {
		err = unix.SetsockoptTpacketReq(s.fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req)
	}
	if err != nil {
		return nil, fmt.Errorf("PACKET_TX_RING: %w", err)
	}
	mem, err := unix.Mmap(s.fd, 0, slots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("PACKET_TX_RING: mmap: %w", err)
	}
	for i := range slots {
		copy(mem[i*slotSize+frameOffset:], s.frame)
	}
	return &ring{s, mem, 0}, nil
}

func (r *ring) header(slot int) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&r.mem[slot*slotSize]))
}

func (r *ring) send(n int) error {
	for n > 0 {
		batch := min(n, slots)
		for i := range batch {
			h := r.header((r.next + i) % slots)
			h.Len, h.Status = uint32(len(r.frame)), unix.TP_STATUS_SEND_REQUEST
		}
		last := (r.next + batch - 1) % slots
		for r.header(last).Status != unix.TP_STATUS_AVAILABLE {
			_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(r.fd), 0, 0, 0, 0, 0)
			if errno != 0 {
				return os.NewSyscallError("sendto", errno)
			}
		}
		r.next = (r.next + batch) % slots
		n -= batch
	}
	return nil
}

func (r *ring) Close() error { return errors.Join(unix.Munmap(r.mem), r.socket.Close()) }
