package matrix

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringVersion is that of a call by TX_RING, less than 0 for another.
func ringVersion(call string) int {
	switch call {
	case callRing1:
		return unix.TPACKET_V1
	case callRing2:
		return unix.TPACKET_V2
	case callRing3:
		return unix.TPACKET_V3
	}
	return -1
}

// ring is a TX_RING, of one block.
type ring struct {
	fd, version, next int
	slots             []byte
}

const slot = 2048

func newRing(fd, version int) (*ring, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, version); err != nil {
		return nil, err
	}
	// A frame that the kernel cannot send must not stop those behind it.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_LOSS, 1); err != nil {
		return nil, err
	}
	var err error
	if version == unix.TPACKET_V3 {
		err = unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_TX_RING,
			&unix.TpacketReq3{Block_size: slot * maxBatch, Block_nr: 1, Frame_size: slot, Frame_nr: maxBatch})
	} else {
		err = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING,
			&unix.TpacketReq{Block_size: slot * maxBatch, Block_nr: 1, Frame_size: slot, Frame_nr: maxBatch})
	}
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, slot*maxBatch, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return &ring{fd: fd, version: version, slots: b}, err
}

// send puts a frame into the next slot and has the kernel send it.
func (r *ring) send(m message) error {
	if err := r.put(m.body); err != nil {
		return err
	}
	err := sendto(r.fd, message{to: m.to})
	// The gate reports to a bypass sender that the frame was consumed, and
	// tpacket_snd then offers the same slot again in the next call. Whoever does
	// not take it back, as here, sends that one frame again and again.
	if !errors.Is(err, unix.ENOBUFS) {
		r.next = (r.next + 1) % maxBatch
	}
	return err
}

// put fills the next slot. Versions differ in their headers, and in nothing else here.
func (r *ring) put(frame []byte) error {
	b := r.slots[r.next*slot:][:slot]
	n := uint32(len(frame))
	var status *uint32
	var body []byte
	switch r.version {
	case unix.TPACKET_V1:
		h := (*tpacketHdr)(unsafe.Pointer(&b[0]))
		h.length, h.snaplen = n, n
		status, body = (*uint32)(unsafe.Pointer(&h.status)), b[unsafe.Sizeof(*h):]
	case unix.TPACKET_V2:
		h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
		h.Len, h.Snaplen = n, n
		status, body = &h.Status, b[unix.SizeofTpacket2Hdr:]
	case unix.TPACKET_V3:
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[0]))
		h.Len, h.Snaplen, h.Next_offset = n, n, 0
		status, body = &h.Status, b[unix.SizeofTpacket3Hdr:]
	}
	if s := atomic.LoadUint32(status); s&(unix.TP_STATUS_SENDING) != 0 {
		return fmt.Errorf("slot %d of the ring is still being sent (status %#x)", r.next, s)
	}
	if copy(body, frame) < len(frame) {
		return unix.EMSGSIZE
	}
	atomic.StoreUint32(status, unix.TP_STATUS_SEND_REQUEST)
	return nil
}

// tpacketHdr is struct tpacket_hdr, aligned to 16.
type tpacketHdr struct {
	status          uint64
	length, snaplen uint32
	mac, net        uint16
	sec, usec       uint32
	_               uint32
}
