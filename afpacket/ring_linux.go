package afpacket

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// Ring sends frames through memory shared with the kernel (PACKET_TX_RING,
// TPACKET_V2): one system call for as many frames as were queued. It is safe for
// use by many goroutines.
type Ring struct {
	outlet // what leaves elsewhere, or with a mark, cannot use the ring
	tx     *sendSocket
	ring   *sendSocket
	drain  func(fd uintptr) bool // allocated once
	// scratch is for writeDirect, under mu.
	scratch *transit

	mu   sync.Mutex
	mem  []byte
	slot int // bytes
	n    int // slots
	head int // the slot that is written next
	tail int // the first that the kernel has not taken
	full bool
	// want is what drain waits for: room for a frame, or that all are taken.
	want func(*Ring) bool
	lost int
	why  error // of the first that was lost
}

// frameOffset is where a frame begins in its slot: TPACKET2_HDRLEN without the
// sockaddr_ll (packet_mmap.rst).
const frameOffset = 32

// OpenRing makes a ring of at least that many slots, 256 if 0, for frames that
// leave by ifi with their Ethernet header. A nil cfg is valid.
func OpenRing(ifi *net.Interface, slots int, cfg *Config) (*Ring, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	r, err := openRing(ifi, slots, cfg)
	if err != nil {
		return nil, opError("ring", ifi, err)
	}
	return r, nil
}

func openRing(ifi *net.Interface, slots int, cfg *Config) (_ *Ring, err error) {
	switch {
	case ifi == nil:
		return nil, errNoInterface
	case slots < 0 || slots > 1<<16:
		return nil, fmt.Errorf("%d slots: at most 65536", slots)
	case slots == 0:
		slots = 256
	}
	r := &Ring{scratch: transits.Get().(*transit)}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	if r.tx, err = sender(ifi); err != nil {
		return nil, err
	}
	if err = r.open(r.tx, ifi, cfg); err != nil {
		return nil, err
	}
	if r.ring, err = sender(ifi); err != nil {
		return nil, err
	}
	r.drain = r.kick
	return r, r.mmap(slots, cfg.Bypass)
}

// mmap shares the slots with the kernel. A slot holds the longest frame that the
// interface takes now.
func (r *Ring) mmap(slots int, pass bool) error {
	var mtu int
	err := control(r.ring, func(fd int) (err error) {
		mtu, err = interfaceMTU(fd, r.at.Load().name)
		return err
	})
	if err != nil {
		return err
	}
	r.slot = max(2048, 1<<bits.Len(uint(frameOffset+14+4+mtu-1)))
	block := max(r.slot, 64<<10)
	perBlock := block / r.slot
	blocks := (slots + perBlock - 1) / perBlock
	r.n = blocks * perBlock
	req := unix.TpacketReq{Block_size: uint32(block), Block_nr: uint32(blocks), Frame_size: uint32(r.slot), Frame_nr: uint32(r.n)}
	return control(r.ring, func(fd int) error {
		if pass {
			if err := bypass(fd); err != nil {
				return err
			}
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2); err != nil {
			return os.NewSyscallError("PACKET_VERSION", err)
		}
		if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req); err != nil {
			return fmt.Errorf("PACKET_TX_RING: %w (%d slots of %d bytes)", err, r.n, r.slot)
		}
		var err error
		r.mem, err = unix.Mmap(fd, 0, block*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return os.NewSyscallError("mmap", err)
	})
}

// Write queues one frame, of which it takes a copy first, and waits for a slot
// if there is none. The error is that of this frame: a refusal, or what
// Conn.WriteTo would say. What the kernel says of queued frames is for Flush.
func (r *Ring) Write(frame []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done, err := r.writeDirect(frame)
	if !done {
		t := begin(&r.outlet, r.event, 1)
		r.load(t, 0, frame, &anywhere)
		err = r.leave(t)
	}
	if err != nil {
		return 0, &net.OpError{Op: "write", Net: "packet", Source: place(r.at.Load().name), Err: err}
	}
	return len(frame), nil
}

// writeDirect judges the frame in its slot, where the kernel does not look at it yet. It is done unless others than
// the ring's own firewall have a say, or there is no slot.
func (r *Ring) writeDirect(frame []byte) (done bool, err error) {
	if r.own == nil || active.Load() != 0 && r.dev.hooks.Load() != nil || r.mem == nil || !r.hasRoom() ||
		len(frame) < 14 || len(frame) > r.slot-frameOffset {
		return false, nil
	}
	p, err := r.here(r.scratch)
	if err != nil {
		return true, err
	}
	at := r.head*r.slot + frameOffset
	in := r.mem[at : at+len(frame) : at+len(frame)]
	copy(in, frame)
	pkt := &r.scratch.pkt
	pkt.Decode(in, p.meta)
	d := r.own.Classify(pkt)
	if d.Verdict == firewall.Accept && d.Plain() && r.event == nil {
		r.queue(len(frame))
		return true, nil
	}
	t := begin(&r.outlet, r.event, 1)
	t.own, t.home = r.own, p.ifindex
	s := skb{bytes: t.copy(in)}
	gone, err := t.act(p, &d, &s)
	if t.errs[0] = err; !gone {
		t.outs = append(t.outs, out{s.bytes, p.ifindex, s.mark, 0})
	}
	return true, r.leave(t)
}

// leave queues what came through the data path, and sends what cannot use the ring.
func (r *Ring) leave(t *transit) error {
	defer t.end()
	elsewhere := t.outs[:0]
	for _, o := range t.outs {
		if o.ifindex != r.dev.key.ifindex || o.mark != 0 {
			elsewhere = append(elsewhere, o)
		} else if err := r.put(o.frame); err != nil {
			t.kernel.fail(o.msg, err)
		}
	}
	if t.outs = elsewhere; len(elsewhere) > 0 {
		// Frames keep their order.
		if err := r.await((*Ring).allTaken); err != nil {
			t.kernel.fail(0, err)
		}
		t.kernel.transmit(&r.outlet)
	}
	return t.errs[0]
}

// anywhere is the address of a frame that has its own in its header.
var anywhere Addr

// put copies the frame to the next slot.
func (r *Ring) put(frame []byte) error {
	if len(frame) > r.slot-frameOffset {
		return os.NewSyscallError("sendto", unix.EMSGSIZE)
	}
	if r.mem == nil {
		return net.ErrClosed
	}
	if !r.hasRoom() {
		if err := r.await((*Ring).hasRoom); err != nil {
			return err
		}
	}
	copy(r.mem[r.head*r.slot+frameOffset:], frame)
	r.queue(len(frame))
	return nil
}

// queue says that a frame of that many bytes is in the next slot.
func (r *Ring) queue(n int) {
	h := r.header(r.head)
	h.Len = uint32(n)
	atomic.StoreUint32(&h.Status, unix.TP_STATUS_SEND_REQUEST)
	r.head = r.after(r.head)
	r.full = r.head == r.tail
}

// after is the slot behind another. A division would take longer than all else that is done to queue a frame.
func (r *Ring) after(slot int) int {
	if slot++; slot == r.n {
		return 0
	}
	return slot
}

func (r *Ring) header(slot int) *unix.Tpacket2Hdr {
	return (*unix.Tpacket2Hdr)(unsafe.Pointer(&r.mem[slot*r.slot]))
}

func (r *Ring) status(slot int) uint32 { return atomic.LoadUint32(&r.header(slot).Status) }

func (r *Ring) empty() bool { return r.head == r.tail && !r.full }

func (r *Ring) hasRoom() bool { return !r.full && r.status(r.head) == unix.TP_STATUS_AVAILABLE }

func (r *Ring) allTaken() bool { return r.empty() }

// Flush hands the queued frames to the kernel and returns when it has taken
// them. The error tells how many it refused since the last Flush, and why the
// first of them.
func (r *Ring) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem == nil {
		return &net.OpError{Op: "write", Net: "packet", Err: net.ErrClosed}
	}
	err := r.await((*Ring).allTaken)
	if r.lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d queued frames refused, the first: %w", r.lost, r.why))
		r.lost, r.why = 0, nil
	}
	if err != nil {
		return &net.OpError{Op: "write", Net: "packet", Source: place(r.at.Load().name), Err: err}
	}
	return nil
}

// await kicks the kernel until want holds, at most until the write deadline.
func (r *Ring) await(want func(*Ring) bool) error {
	if r.mem == nil {
		return net.ErrClosed
	}
	r.want = want
	if err := r.ring.Write(r.drain); err != nil {
		return cause(err)
	}
	return nil
}

// kick makes the kernel look at the ring (af_packet.c, tpacket_snd). It returns
// false if the socket has to become writable first.
func (r *Ring) kick(fd uintptr) bool {
	for !r.want(r) {
		_, _, errno := unix.Syscall6(unix.SYS_SENDTO, fd, 0, 0, unix.MSG_DONTWAIT, 0, 0)
		taken := r.advance()
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN, r.empty(), errno == 0 && !taken:
			return r.want(r)
		case errno != 0:
			r.drop(errno)
		}
	}
	return true
}

// advance moves the tail past what the kernel has taken.
func (r *Ring) advance() (any bool) {
	for !r.empty() {
		if s := r.status(r.tail); s == unix.TP_STATUS_SEND_REQUEST || s == unix.TP_STATUS_WRONG_FORMAT {
			break
		}
		r.tail, r.full, any = r.after(r.tail), false, true
	}
	return any
}

// drop takes the frame that the kernel stumbled over out of the ring. The kernel
// does not move on: it asks for the same slot again, so those behind it move up.
func (r *Ring) drop(errno unix.Errno) {
	if r.lost++; r.why == nil {
		r.why = os.NewSyscallError("sendto", errno)
	}
	last := (r.head + r.n - 1) % r.n
	for i := r.tail; i != last; {
		next := r.after(i)
		copy(r.mem[i*r.slot+frameOffset:(i+1)*r.slot], r.mem[next*r.slot+frameOffset:(next+1)*r.slot])
		r.header(i).Len = r.header(next).Len
		atomic.StoreUint32(&r.header(i).Status, unix.TP_STATUS_SEND_REQUEST)
		i = next
	}
	atomic.StoreUint32(&r.header(last).Status, unix.TP_STATUS_AVAILABLE)
	r.head, r.full = last, false
}

// SetWriteDeadline bounds how long Write and Flush wait.
func (r *Ring) SetWriteDeadline(t time.Time) error {
	return errors.Join(r.tx.SetWriteDeadline(t), r.ring.SetWriteDeadline(t))
}

// Close gives the ring back. Frames that were not flushed are lost.
func (r *Ring) Close() error {
	defer r.outlet.close()
	var errs [3]error
	// Closing the sockets ends a Write that waits, which holds the lock.
	if r.tx != nil {
		errs[0] = r.tx.Close()
	}
	if r.ring != nil {
		errs[1] = r.ring.Close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem != nil {
		errs[2] = unix.Munmap(r.mem)
		r.mem = nil
	}
	return errors.Join(errs[:]...)
}
