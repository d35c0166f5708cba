package etcd

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dialer connects to servers so that a connection of which nothing is acknowledged for a while is over. TCP
// would send again after 3, 6, 12 s and find a network that is back only then. (gRPC's own
// keep-alive asks each 10 s at most.)
func dialer(patience time.Duration) func(context.Context, string) (net.Conn, error) {
	d := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		outer := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(patience.Milliseconds()))
		})
		if outer != nil {
			return outer
		}
		return err
	}}
	return func(ctx context.Context, at string) (net.Conn, error) { return d.DialContext(ctx, "tcp", at) }
}
