//go:build !linux

package etcd

import (
	"context"
	"net"
	"time"
)

func dialer(time.Duration) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, at string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", at)
	}
}
