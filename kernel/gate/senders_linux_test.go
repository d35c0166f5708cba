package gate

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender is a way in which a program makes the kernel send frames.
type sender struct {
	name string
	send func(ifindex, n int) error
}

// markedFrame is a broadcast frame of n bytes that ends in the marker.
func markedFrame(n int) []byte {
	b := make([]byte, n-4, n)
	copy(b, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x88\xb5")
	return binary.NativeEndian.AppendUint32(b, marker)
}

// senders returns all of them: sockets, rings and what they claim.
func senders() (list []sender) {
	for _, bypass := range []bool{false, true} {
		for _, protocol := range []uint16{0, 0x88b5, unix.ETH_P_IP} {
			for _, typ := range []int{unix.SOCK_RAW, unix.SOCK_DGRAM} {
				name := fmt.Sprintf("%s protocol %#x bypass %t", map[int]string{unix.SOCK_RAW: "raw", unix.SOCK_DGRAM: "dgram"}[typ], protocol, bypass)
				list = append(list, sender{name, func(ifindex, n int) error {
					return sendPlain(typ, protocol, bypass, ifindex, n, 64)
				}})
			}
			for _, version := range []int{unix.TPACKET_V2, unix.TPACKET_V3} {
				name := fmt.Sprintf("TX_RING v%d protocol %#x bypass %t", version+1, protocol, bypass)
				list = append(list, sender{name, func(ifindex, n int) error {
					return sendRing(version, protocol, bypass, ifindex, n)
				}})
			}
		}
	}
	return append(list, sender{"SOCK_PACKET", sendOld})
}

func packetSocket(typ int, bypass bool) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if bypass {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// tolerate forgives what a funnelled sender hears.
func tolerate(err error) error {
	if err == unix.ENOBUFS {
		return nil
	}
	return err
}

func sendPlain(typ int, protocol uint16, bypass bool, ifindex, n, size int) error {
	fd, err := packetSocket(typ, bypass)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	frame := markedFrame(size)
	if typ == unix.SOCK_DGRAM {
		frame = frame[14:]
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: ifindex, Halen: 6, Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}
	for range n {
		if err := tolerate(unix.Sendto(fd, frame, 0, to)); err != nil {
			return err
		}
	}
	return nil
}

// sendRing sends n frames, at most 64, through a TX ring.
func sendRing(version int, protocol uint16, bypass bool, ifindex, n int) error {
	fd, err := packetSocket(unix.SOCK_RAW, bypass)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, version); err != nil {
		return err
	}
	const slot, slots = 2048, 64
	req := unix.TpacketReq{Block_size: slot * slots, Block_nr: 1, Frame_size: slot, Frame_nr: slots}
	if version == unix.TPACKET_V3 {
		req3 := unix.TpacketReq3{Block_size: req.Block_size, Block_nr: 1, Frame_size: slot, Frame_nr: slots}
		err = unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req3)
	} else {
		err = unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req)
	}
	if err != nil {
		return err
	}
	ring, err := unix.Mmap(fd, 0, slot*slots, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(ring)
	frame := markedFrame(64)
	for i := range n {
		b := ring[i*slot:]
		if version == unix.TPACKET_V3 {
			h := (*unix.Tpacket3Hdr)(unsafe.Pointer(&b[0]))
			h.Len, h.Snaplen, h.Status = uint32(len(frame)), uint32(len(frame)), unix.TP_STATUS_SEND_REQUEST
			copy(b[unix.SizeofTpacket3Hdr:], frame)
		} else {
			h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
			h.Len, h.Snaplen, h.Status = uint32(len(frame)), uint32(len(frame)), unix.TP_STATUS_SEND_REQUEST
			copy(b[unix.SizeofTpacket2Hdr:], frame)
		}
	}
	to := &unix.SockaddrLinklayer{Protocol: htons(protocol), Ifindex: ifindex, Halen: 6}
	for range n { // a refusal ends the call (tpacket_snd), so that one call is one frame at least
		if err := tolerate(unix.Sendto(fd, nil, 0, to)); err != nil {
			return err
		}
	}
	return nil
}

// sendOld sends by the socket type that packet(7) calls strongly deprecated.
func sendOld(ifindex, n int) error {
	const sockPacket = 10
	fd, err := unix.Socket(unix.AF_PACKET, sockPacket|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := struct { // sockaddr_pkt
		family   uint16
		device   [14]byte
		protocol uint16
	}{family: unix.AF_PACKET, protocol: htons(0x88b5)}
	name, err := ifname(ifindex)
	if err != nil {
		return err
	}
	copy(to.device[:], name)
	frame := markedFrame(64)
	for range n {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)), 0,
			uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
		if errno != 0 && errno != unix.ENOBUFS {
			return errno
		}
	}
	return nil
}

// ifname is if_indextoname in the thread's own namespace.
func ifname(ifindex int) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var req struct {
		name  [16]byte
		index int32
		_     [20]byte
	}
	req.index = int32(ifindex)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return "", errno
	}
	return unix.ByteSliceToString(req.name[:]), nil
}
