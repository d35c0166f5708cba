//go:build linux

package main

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket sends a frame from the near namespace by a packet socket of its own. What the
// kernel says of it is not believed: behind the gate a bypassing socket hears ENOBUFS
// in any case.
func (k *demoKernel) socket(frame []byte, bypass, ring bool) error {
	return k.pair.Do(0, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		defer unix.Close(fd)
		if bypass {
			if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
				return fmt.Errorf("PACKET_QDISC_BYPASS: %w", err)
			}
		}
		payload := frame
		if ring {
			slots, err := fillRing(fd, frame)
			if err != nil {
				return fmt.Errorf("PACKET_TX_RING: %w", err)
			}
			defer func() { _ = unix.Munmap(slots) }()
			payload = nil
		}
		err = unix.Sendto(fd, payload, 0, &unix.SockaddrLinklayer{Ifindex: k.pair.Ifi[0].Index, Protocol: uint16(frame[13])<<8 | uint16(frame[12])})
		if errors.Is(err, unix.ENOBUFS) {
			return nil
		}
		return err
	})
}

// fillRing puts a frame into the first slot of a ring that the kernel sends from.
func fillRing(fd int, frame []byte) (slots []byte, err error) {
	const slot, count = 2048, 2
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
		return nil, err
	}
	req := &unix.TpacketReq{Block_size: slot * count, Block_nr: 1, Frame_size: slot, Frame_nr: count}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, req); err != nil {
		return nil, err
	}
	slots, err = unix.Mmap(fd, 0, slot*count, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	copy(slots[unix.SizeofTpacket2Hdr:slot], frame)
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slots[0]))
	h.Len, h.Snaplen, h.Status = uint32(len(frame)), uint32(len(frame)), unix.TP_STATUS_SEND_REQUEST
	return slots, nil
}
