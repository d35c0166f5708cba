//go:build !linux

package afpacket

import (
	"errors"
	"net"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
)

// Packet sockets are Linux's. Elsewhere the package compiles, and every
// constructor returns a *net.OpError with errors.ErrUnsupported in it.
type (
	// Conn is a guarded packet socket.
	Conn struct{}
	// Ring sends frames through memory shared with the kernel.
	Ring struct{}
	// Overlay is a device in this process.
	Overlay struct{}
	// Hook is one hook of an interface.
	Hook struct{}
)

var errUnsupported = &net.OpError{Op: "listen", Net: "packet", Err: errors.ErrUnsupported}

func Listen(*net.Interface, Type, int, *Config) (*Conn, error) { return nil, errUnsupported }
func OpenRing(*net.Interface, int, *Config) (*Ring, error)     { return nil, errUnsupported }
func NewOverlay(string, *net.Interface, VXLAN, *Config) (*Overlay, error) {
	return nil, errUnsupported
}
func Attach(*net.Interface, Classifier) (*Hook, error) { return nil, errUnsupported }
func AttachLower(*net.Interface, Lower) (*Hook, error) { return nil, errUnsupported }

func (*Conn) Close() error                               { return errUnsupported }
func (*Conn) LocalAddr() net.Addr                        { return nil }
func (*Conn) ReadFrom([]byte) (int, net.Addr, error)     { return 0, nil, errUnsupported }
func (*Conn) WriteTo([]byte, net.Addr) (int, error)      { return 0, errUnsupported }
func (*Conn) WriteBatch([]Message) (int, error)          { return 0, errUnsupported }
func (*Conn) SetDeadline(time.Time) error                { return errUnsupported }
func (*Conn) SetReadDeadline(time.Time) error            { return errUnsupported }
func (*Conn) SetWriteDeadline(time.Time) error           { return errUnsupported }
func (*Conn) SetBPF([]bpf.RawInstruction) error          { return errUnsupported }
func (*Conn) SetPromiscuous(bool) error                  { return errUnsupported }
func (*Conn) JoinGroup(net.HardwareAddr) error           { return errUnsupported }
func (*Conn) LeaveGroup(net.HardwareAddr) error          { return errUnsupported }
func (*Conn) Stats() (*packet.Stats, error)              { return nil, errUnsupported }
func (*Conn) SetReadOption(level, name, value int) error { return errUnsupported }
func (*Ring) Write([]byte) (int, error)                  { return 0, errUnsupported }
func (*Ring) Flush() error                               { return errUnsupported }
func (*Ring) SetWriteDeadline(time.Time) error           { return errUnsupported }
func (*Ring) Close() error                               { return errUnsupported }
func (*Overlay) Interface() *net.Interface               { return nil }
func (*Overlay) Write([]byte) (int, error)               { return 0, errUnsupported }
func (*Overlay) Close() error                            { return errUnsupported }
func (*Hook) Detach()                                    {}
