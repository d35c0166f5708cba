package matrix

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// path is a way in which a program makes the kernel send a frame.
type path struct {
	name string
	open func(ifindex int) (sender, error)
}

// sender sends frames of at most 2,000 bytes. unsendable says that no socket of this
// kind can send such a frame; ENOBUFS, which a funnelled sender hears whatever becomes
// of its frame, is no error.
type sender struct {
	fd    int
	send  func(frame []byte) error
	close func()
}

var errUnsendable = errors.New("the socket does not take such a frame")

// The claims: the truth, nothing, and two lies.
const truth = -1

func paths() (list []path) {
	for _, bypass := range []bool{false, true} {
		for _, claim := range []int{truth, 0, unix.ETH_P_IP, unix.ETH_P_LLDP} {
			claimed := map[int]string{truth: "true", 0: "0", unix.ETH_P_IP: "IPv4", unix.ETH_P_LLDP: "LLDP"}[claim]
			for _, version := range []int{-1, unix.TPACKET_V2, unix.TPACKET_V3} {
				kind := map[int]string{-1: "sendto", unix.TPACKET_V2: "TX_RING 2", unix.TPACKET_V3: "TX_RING 3"}[version]
				list = append(list, path{fmt.Sprintf("%s, protocol %s, bypass %t", kind, claimed, bypass), func(ifindex int) (sender, error) {
					return open(ifindex, claim, bypass, version)
				}})
			}
		}
	}
	for _, bypass := range []bool{false, true} {
		list = append(list, path{fmt.Sprintf("PACKET_VNET_HDR, bypass %t", bypass), func(ifindex int) (sender, error) {
			return openVNET(ifindex, bypass, 0)
		}})
	}
	return append(list, path{"SOCK_PACKET", openOld})
}

// openVNET opens a socket that puts struct virtio_net_hdr before its frames; with a
// segment size, for IPv4 without options and UDP, each is a super-frame.
func openVNET(ifindex int, bypass bool, gso int) (sender, error) {
	const vnetHdr, needsChecksum, gsoUDPL4 = 15, 1, 5 // if_packet.h, virtio_net.h
	s, err := open(ifindex, 0, bypass, -1)
	if err != nil {
		return s, err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, vnetHdr, 1); err != nil {
		s.close()
		return s, err
	}
	header := make([]byte, 10)
	if gso > 0 {
		header[0], header[1] = needsChecksum, gsoUDPL4
		for i, v := range []int{14 + 20 + 8, gso, 14 + 20, 6} { // hdr_len, gso_size, csum_start, csum_offset
			binary.NativeEndian.PutUint16(header[2+2*i:], uint16(v))
		}
	}
	plain := s.send
	s.send = func(frame []byte) error { return plain(append(header[:10:10], frame...)) }
	return s, nil
}

func open(ifindex, claim int, bypass bool, version int) (s sender, err error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if bypass {
		if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return s, err
		}
	}
	to := func(frame []byte) *unix.SockaddrLinklayer {
		protocol := uint16(claim)
		if claim == truth && len(frame) >= 14 {
			protocol = binary.BigEndian.Uint16(frame[12:])
		}
		return &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: ifindex, Halen: 6}
	}
	s = sender{fd: fd, close: func() { unix.Close(fd) }, send: func(frame []byte) error {
		return heard(unix.Sendto(fd, frame, 0, to(frame)))
	}}
	if version < 0 {
		return s, nil
	}
	ring, err := newRing(fd, version)
	if err != nil {
		return s, err
	}
	s.close = func() { unix.Munmap(ring.slots); unix.Close(fd) }
	s.send = func(frame []byte) error {
		ring.put(frame)
		err := unix.Sendto(fd, nil, 0, to(frame))
		// The gate reports to a bypass sender that the frame was consumed, and
		// tpacket_snd then offers the same slot again in the next call. Whoever does
		// not take it back, as here, sends that one frame again and again.
		if !errors.Is(err, unix.ENOBUFS) {
			ring.next = (ring.next + 1) % slots
		}
		return heard(err)
	}
	return s, nil
}

// heard tells what the sender heard from what is wrong.
func heard(err error) error {
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EMSGSIZE):
		return errUnsendable
	}
	return err
}

const slot, slots = 2048, 64

type ring struct {
	version, next int
	slots         []byte
}

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
			&unix.TpacketReq3{Block_size: slot * slots, Block_nr: 1, Frame_size: slot, Frame_nr: slots})
	} else {
		err = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING,
			&unix.TpacketReq{Block_size: slot * slots, Block_nr: 1, Frame_size: slot, Frame_nr: slots})
	}
	if err != nil {
		return nil, err
	}
	b, err := unix.Mmap(fd, 0, slot*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return &ring{version: version, slots: b}, err
}

func (r *ring) put(frame []byte) {
	b := r.slots[r.next*slot:]
	n := uint32(len(frame))
	if r.version == unix.TPACKET_V3 {
		copy(b[unix.SizeofTpacket3Hdr:slot], frame)
		h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[0]))
		h.Len, h.Snaplen, h.Next_offset, h.Status = n, n, 0, unix.TP_STATUS_SEND_REQUEST
		return
	}
	copy(b[unix.SizeofTpacket2Hdr:slot], frame)
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
	h.Len, h.Snaplen, h.Status = n, n, unix.TP_STATUS_SEND_REQUEST
}

// openOld opens the socket type that packet(7) calls strongly deprecated. Its address
// holds the device's name.
func openOld(ifindex int) (s sender, err error) {
	const sockPacket = 10
	fd, err := unix.Socket(unix.AF_PACKET, sockPacket|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return s, err
	}
	return sender{fd: fd, close: func() { unix.Close(fd) }, send: func(frame []byte) error {
		var to struct {
			family uint16
			data   [14]byte
			proto  uint16
		}
		to.family = unix.AF_PACKET
		copy(to.data[:], "near")
		if len(frame) >= 14 {
			to.proto = htons(binary.BigEndian.Uint16(frame[12:]))
		}
		if len(frame) == 0 {
			return errUnsendable
		}
		_, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)), 0,
			uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		if e != 0 {
			return heard(e)
		}
		return nil
	}}, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
