package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// diagnosis is why a server does not answer. The client of etcd waits for it without saying.
type diagnosis struct {
	why   error
	asked time.Time // of the host's clock, for how often alone
	busy  bool
}

// diagnose finds out in the background why server i does not answer, not too often.
func (c *Client) diagnose(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.why[i]
	if d.busy || c.closed || time.Since(d.asked) < 2*time.Second {
		return
	}
	d.busy, d.asked = true, time.Now()
	go func() {
		err := c.knock(c.Endpoints[i])
		c.mu.Lock()
		defer c.mu.Unlock()
		d.busy, d.why = false, err
	}()
}

// knock connects to a server, and says what is wrong with that; nil if nothing is seen.
func (c *Client) knock(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*c.Timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return nil
	}
	cfg := c.tls.Clone()
	cfg.ServerName, cfg.NextProtos = u.Hostname(), []string{"h2"}
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	// With TLS 1.3 a server refuses a client's certificate only after the handshake.
	_ = secure.SetReadDeadline(time.Now().Add(c.Timeout))
	if _, err := secure.Read(make([]byte, 1)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("TLS: %w", err)
	}
	return nil
}

// explained adds to the error of server i what is known of it.
func (c *Client) explained(i int, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if why := c.why[i].why; why != nil && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", err, why)
	}
	return err
}
