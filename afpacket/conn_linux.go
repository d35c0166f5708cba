package afpacket

import (
	"net"
	"os"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Conn is a guarded packet socket: a net.PacketConn whose addresses are *Addr.
// It is safe for use by many goroutines.
type Conn struct {
	outlet
	rx *packet.Conn
	// tx sends, header and all; nil if rx does, for a Raw Conn that reads all protocols: it would
	// read its own frames if another socket had sent them.
	tx *sendSocket
}

var (
	_ net.PacketConn = (*Conn)(nil)
	_ bpf.Setter     = (*Conn)(nil)
)

// Listen opens a guarded packet socket on ifi, which must be an Ethernet
// interface of the calling thread's network namespace. protocol is the EtherType
// to read, in host byte order; a Datagram Conn also writes it. A nil cfg is
// valid. The error is a *net.OpError.
//
// A Datagram Conn of unix.ETH_P_ALL reads its own frames too.
func Listen(ifi *net.Interface, socketType Type, protocol int, cfg *Config) (*Conn, error) {
	if cfg == nil {
		cfg = &Config{}
	}
	c, err := listen(ifi, socketType, protocol, cfg)
	if err != nil {
		return nil, opError("listen", ifi, err)
	}
	return c, nil
}

func listen(ifi *net.Interface, socketType Type, protocol int, cfg *Config) (_ *Conn, err error) {
	if ifi == nil {
		return nil, errNoInterface
	}
	rx, err := packet.Listen(ifi, socketType, protocol, &packet.Config{Filter: cfg.Filter})
	if err != nil {
		return nil, explain(cause(err))
	}
	c := &Conn{rx: rx}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	c.protocol, c.datagram = uint16(protocol), socketType == Datagram
	if !c.datagram && protocol == unix.ETH_P_ALL {
		fd, err := rx.SyscallConn()
		if err != nil {
			return nil, cause(err)
		}
		return c, c.open(fd, ifi, cfg)
	}
	if c.tx, err = sender(ifi); err != nil {
		return nil, err
	}
	return c, c.open(c.tx, ifi, cfg)
}

// Close closes the socket. Calls under way return net.ErrClosed.
func (c *Conn) Close() error {
	defer c.outlet.close()
	err := c.rx.Close()
	if c.tx != nil {
		if e := c.tx.Close(); err == nil {
			err = e
		}
	}
	return err
}

// LocalAddr is the interface's address when the Conn was opened, an *Addr that
// is shared: do not change it.
func (c *Conn) LocalAddr() net.Addr { return c.rx.LocalAddr() }

// WriteTo sends b, of which it takes a copy first. For a Raw Conn b is the whole
// frame and addr, an *Addr, does not matter; for a Datagram Conn b is the payload
// and addr the destination, 6 bytes. The error is a *net.OpError; a refusal by
// the firewall has a *BlockedError in it. It does not allocate unless it fails.
func (c *Conn) WriteTo(b []byte, addr net.Addr) (int, error) {
	a, ok := addr.(*Addr)
	if !ok || a == nil || a.HardwareAddr == nil {
		return 0, c.writeError(addr, os.NewSyscallError("sendto", unix.EINVAL))
	}
	if err := c.writeTo(b, a); err != nil {
		return 0, c.writeError(addr, err)
	}
	return len(b), nil
}

// batch is how many messages are led through the data path before they are sent.
const batch = 64

// WriteBatch sends many messages by sendmmsg(2), each as WriteTo would, and sets
// each one's Err. It returns how many the kernel took and, if that is not all,
// the first error. A refused message does not stop those after it.
func (c *Conn) WriteBatch(ms []Message) (sent int, err error) {
	t := begin(&c.outlet, c.event, 0)
	defer t.end()
	for len(ms) > 0 {
		chunk := ms[:min(batch, len(ms))]
		ms = ms[len(chunk):]
		t.reset(len(chunk))
		for i := range chunk {
			if chunk[i].Addr == nil {
				t.errs[i] = os.NewSyscallError("sendmmsg", unix.EINVAL)
				continue
			}
			c.load(t, i, chunk[i].Bytes, chunk[i].Addr)
		}
		t.kernel.transmit(&c.outlet)
		for i := range chunk {
			m := &chunk[i]
			if m.Err = t.errs[i]; m.Err == nil {
				sent++
				continue
			}
			m.Err = c.writeError(m.Addr, m.Err)
			if err == nil {
				err = m.Err
			}
		}
	}
	return sent, err
}

// ReadFrom reads one frame, or the payload of one for a Datagram Conn. The
// address is an *Addr, nil if there is an error.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, a, err := c.rx.ReadFrom(b)
	if p, ok := a.(*Addr); ok && p == nil { // mdlayher/packet's typed nil
		a = nil
	}
	return n, a, err
}

// SetDeadline, SetReadDeadline and SetWriteDeadline are those of net.PacketConn.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetWriteDeadline(t); err != nil {
		return err
	}
	return c.SetReadDeadline(t)
}

// SetReadDeadline see SetDeadline.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.rx.SetReadDeadline(t) }

// SetWriteDeadline see SetDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.tx != nil {
		return c.tx.SetWriteDeadline(t)
	}
	return c.rx.SetWriteDeadline(t)
}

// SetBPF replaces the filter on what is read.
func (c *Conn) SetBPF(filter []bpf.RawInstruction) error { return c.rx.SetBPF(filter) }

// SetPromiscuous makes the interface read what is addressed to others, too.
func (c *Conn) SetPromiscuous(enable bool) error { return c.rx.SetPromiscuous(enable) }

// JoinGroup makes the interface read a multicast address; LeaveGroup undoes it.
func (c *Conn) JoinGroup(addr net.HardwareAddr) error { return c.rx.JoinGroup(addr) }

// LeaveGroup see JoinGroup.
func (c *Conn) LeaveGroup(addr net.HardwareAddr) error { return c.rx.LeaveGroup(addr) }

// Stats are the kernel's counters of what was read, since the last call.
func (c *Conn) Stats() (*packet.Stats, error) { return c.rx.Stats() }

// SetReadOption sets an integer socket option that has to do with reading alone:
// SO_RCVBUF, SO_RCVBUFFORCE and SO_BUSY_POLL of SOL_SOCKET, PACKET_FANOUT and
// PACKET_IGNORE_OUTGOING of SOL_PACKET. Others are refused with EPERM.
func (c *Conn) SetReadOption(level, name, value int) error {
	switch [2]int{level, name} {
	case [2]int{unix.SOL_SOCKET, unix.SO_RCVBUF}, [2]int{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE},
		[2]int{unix.SOL_SOCKET, unix.SO_BUSY_POLL},
		[2]int{unix.SOL_PACKET, unix.PACKET_FANOUT}, [2]int{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING}:
	default:
		return &net.OpError{Op: "set", Net: "packet", Source: c.LocalAddr(), Err: os.NewSyscallError("setsockopt", unix.EPERM)}
	}
	fd, err := c.rx.SyscallConn()
	if err != nil {
		return err
	}
	if err := control(fd, func(fd int) error {
		return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, name, value))
	}); err != nil {
		return &net.OpError{Op: "set", Net: "packet", Source: c.LocalAddr(), Err: err}
	}
	return nil
}

func (c *Conn) writeError(to net.Addr, err error) error {
	if a, ok := to.(*Addr); ok && a == nil {
		to = nil
	}
	return &net.OpError{Op: "write", Net: "packet", Source: c.LocalAddr(), Addr: to, Err: err}
}
