package matrix

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// These senders show the judge another frame than the one that leaves: the host's own
// announcement, and one of the peer's address.

// senderIP is where ARP has the sender's protocol address.
const senderIP = 28

// announcement is an honest one of the host's own address, padded.
func (w *world) announcement(t testing.TB) (r *role, honest []byte) {
	t.Helper()
	for _, r := range w.roles {
		for _, f := range r.honest {
			if f.Rule == "announce" && len(f.Bytes) == 60 && string(f.Bytes[12:14]) == "\x08\x06" &&
				string(f.Bytes[senderIP:][:4]) == string(w.host.IP.AsSlice()) {
				return r, f.Bytes
			}
		}
	}
	t.Fatal("no announcement among the honest frames")
	return nil, nil
}

// seen counts announcements by whose address they are of.
func (r *receiver) seen(own, peer string, n *[2]int) error {
	return r.settle(func(b []byte) {
		if len(b) == 60 && string(b[12:14]) == "\x08\x06" {
			switch string(b[senderIP:][:4]) {
			case own:
				n[0]++
			case peer:
				n[1]++
			}
		}
	})
}

// flip has another thread write two values to a byte in turn, until the function that it
// returns is called. The byte is where at points.
func flip(at *atomic.Pointer[byte], a, b byte) (stop func()) {
	var end atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for !end.Load() {
			p := at.Load()
			for range 50 {
				*p ^= a ^ b
			}
		}
	}()
	return func() { end.Store(true); <-done }
}

// TestRingChanges: of a TX_RING the kernel sends the very memory that the sender can
// write to. Another thread writes while the frame is judged.
func TestRingChanges(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	role, honest := w.announcement(t)
	own, peer := string(w.host.IP.AsSlice()), string(w.host.PeerIP.AsSlice())
	if own[:3] != peer[:3] {
		t.Fatalf("%s and %s differ in more than a byte", w.host.IP, w.host.PeerIP)
	}
	const last = unix.SizeofTpacket2Hdr + senderIP + 3
	for _, guarded := range []bool{false, true} {
		if guarded {
			w.guard(t, role.policy, how{})
		}
		var n [2]int
		for _, bypass := range []bool{false, true} {
			p := path{call: callRing2, typ: unix.SOCK_RAW, claim: truth, bypass: bypass}
			var fd int
			must(t, w.Do(0, func() (err error) { fd, err = p.socket(); return err }))
			ring, err := newRing(fd, ringVersion(p.call))
			must(t, err)
			m, _ := p.express(honest, w.near)
			var at atomic.Pointer[byte]
			at.Store(&ring.slots[last])
			stop := flip(&at, own[3], peer[3])
			for batch := 0; batch < 400 || !guarded && n[1] == 0 && batch < 5000; batch++ {
				for range maxBatch {
					at.Store(&ring.slots[ring.next*slot+last])
					if err := ring.send(m); err != unix.ENOBUFS {
						must(t, err)
					}
				}
				must(t, r.seen(own, peer, &n))
			}
			stop()
			must(t, unix.Munmap(ring.slots))
			must(t, unix.Close(fd))
		}
		expectUnchanged(t, guarded, n)
	}
}

func expectUnchanged(t *testing.T, guarded bool, n [2]int) {
	t.Helper()
	t.Logf("guarded %t: honest frames %d, forged ones %d", guarded, n[0], n[1])
	if n[0] == 0 {
		t.Error("no honest frame arrived: that proves nothing")
	}
	if (n[1] > 0) == guarded {
		t.Errorf("guarded %t: %d forged frames got out", guarded, n[1])
	}
}

// TestZeroCopyChanges: with MSG_ZEROCOPY a UDP socket sends the sender's memory as well.
// The message's type is DISCOVER or OFFER in turn.
func TestZeroCopyChanges(t *testing.T) {
	const typeAt, discover, offer = 242, 1, 2
	w := newWorld(t)
	r := receive(t, w.Pair)
	var role *role
	var d datagram
	for _, role = range w.roles {
		for _, f := range role.honest {
			if x, ok := w.near.asDatagram(f.Bytes); ok && role.policy.Name == "dhcp-host" && string(x.payload[240:243]) == "\x35\x01\x01" {
				d = x
			}
		}
		if d.payload != nil {
			break
		}
	}
	if d.payload == nil {
		t.Fatal("no DISCOVER among the honest frames")
	}
	memory, err := unix.Mmap(-1, 0, slot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer unix.Munmap(memory)
	payload := memory[:copy(memory, d.payload)]
	fd := udpSockets{}.open(t, w, d.from)
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1))
	to := &unix.SockaddrInet4{Port: d.port, Addr: [4]byte{255, 255, 255, 255}}
	for _, guarded := range []bool{false, true} {
		if guarded {
			w.guard(t, role.policy, how{all: true})
		}
		var n [2]int
		var at atomic.Pointer[byte]
		at.Store(&payload[typeAt])
		stop := flip(&at, discover, offer)
		for batch := 0; batch < 300 || !guarded && n[1] == 0 && batch < 5000; batch++ {
			for range maxBatch / 4 {
				if err := unix.Sendto(fd, payload, unix.MSG_ZEROCOPY, to); err != unix.ENOBUFS {
					must(t, err)
				}
			}
			must(t, r.settle(func(b []byte) {
				if got, ok := w.near.asDatagram(b); ok && len(got.payload) == len(payload) {
					n[min(1, got.payload[typeAt]-discover)]++
				}
			}))
			for { // what the kernel has done with
				if _, _, _, _, err := unix.Recvmsg(fd, nil, make([]byte, 256), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
					break
				}
			}
		}
		stop()
		expectUnchanged(t, guarded, n)
	}
}

// TestChecksumWrittenLater: with PACKET_VNET_HDR the sender says where the kernel or the
// device is to write a checksum (VIRTIO_NET_HDR_F_NEEDS_CSUM), which is done behind every
// egress hook (validate_xmit_skb). It says the last two bytes of ARP's sender address,
// and the padding is such that the peer's come out.
func TestChecksumWrittenLater(t *testing.T) {
	w := newWorld(t)
	r := receive(t, w.Pair)
	role, honest := w.announcement(t)
	own, peer := string(w.host.IP.AsSlice()), string(w.host.PeerIP.AsSlice())
	// A device without checksum offload has the kernel do it, and the receiver sees it.
	must(t, w.Do(0, func() error { return checksumOffload(w.near.name, false) }))

	const start = 20 // the least that virtio_net_hdr_to_skb takes
	f := append([]byte(nil), honest...)
	copy(f[58:], []byte{0, 0})
	sum := uint32(^binary.BigEndian.Uint16([]byte(peer[2:])))
	for i := start; i < len(f); i += 2 {
		sum += uint32(^binary.BigEndian.Uint16(f[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(f[58:], uint16(sum))

	header := vnetHeader{flags: vnetNeedsChecksum, csumStart: start, csumOffset: senderIP + 2 - start}
	for _, guarded := range []bool{false, true} {
		w.unguard(t)
		if guarded {
			w.guard(t, role.policy, how{})
		}
		list := vnetPaths()
		for i := range list {
			list[i].header = header
		}
		var n [2]int
		for _, s := range w.open(t, list) {
			unsendable, err := s.send([][]byte{f})
			must(t, err)
			if unsendable[0] {
				t.Errorf("%s: not sendable", s.path)
			}
			must(t, r.seen(own, peer, &n))
		}
		t.Logf("guarded %t: by %d paths %d announcements of the peer's address", guarded, len(list), n[1])
		if guarded && n[1] > 0 || !guarded && n[1] != len(list) {
			t.Errorf("guarded %t: by %d paths %d announcements of the peer's address got out", guarded, len(list), n[1])
		}
	}
}

// checksumOffload sets a device's own, in the network namespace of the calling thread.
func checksumOffload(name string, on bool) error {
	const ethtoolStxcsum = 0x17 // ethtool.h
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	value := [2]uint32{ethtoolStxcsum, 0}
	if on {
		value[1] = 1
	}
	var request struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	return heard(errno)
}
