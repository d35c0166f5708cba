// Package etcd keeps leases, and what is held under them, in an etcd cluster, with the
// guarantees that a door in the kernel needs: a lease's end is counted from before the
// request that renewed it was sent, each request goes to one server and has a short
// time, and the next one goes to another where that one did not answer.
//
// It refuses to know what a lease is good for: doors, frames and policies are not
// known here. Client is for all that is kept under the prefix.
package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
)

// Config says where an etcd cluster is and who asks.
type Config struct {
	Endpoints []string
	// Prefix is that of all keys, with a slash at its end.
	Prefix string
	// CA, Cert and Key are PEM files; without a CA the system's are asked.
	CA, Cert, Key  string
	User, Password string
	// Timeout is one server's for one request.
	Timeout time.Duration
}

// ErrRefused is matched where etcd is there and refuses: rights, names, certificates.
var ErrRefused = errors.New("etcd refuses")

// Client asks the servers of an etcd cluster, one after the other.
type Client struct {
	Config
	tls *tls.Config

	dialing []sync.Mutex // one for each server: with a password it takes an answer

	mu      sync.Mutex
	servers []*clientv3.Client // made when they are needed
	first   int                // the one that answered last
	closed  bool
	cluster uint64      // its id, as it was told last
	why     []diagnosis // why a server does not answer
}

// Dial checks the configuration. It does not wait for a server.
func Dial(c Config) (*Client, error) {
	if c.Timeout <= 0 {
		c.Timeout = time.Second
	}
	out := &Client{Config: c, servers: make([]*clientv3.Client, len(c.Endpoints)), dialing: make([]sync.Mutex, len(c.Endpoints)), why: make([]diagnosis, len(c.Endpoints))}
	for _, at := range c.Endpoints {
		if strings.HasPrefix(at, "https://") {
			var err error
			if out.tls, err = c.tls(); err != nil {
				return nil, err
			}
			break
		}
	}
	return out, nil
}

func (c *Config) tls() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: %s holds no certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("cert, key: %w", err)
		}
		if end := pair.Leaf.NotAfter; time.Now().After(end) {
			return nil, fmt.Errorf("cert: the certificate in %s has expired on %s: renew it", c.Cert, end.Format(time.DateTime))
		}
		// One that is renewed on disk counts from the next connection on.
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if renewed, err := tls.LoadX509KeyPair(c.Cert, c.Key); err == nil {
				return &renewed, nil
			}
			return &pair, nil
		}
	}
	return out, nil
}

// Close ends all connections.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for i, s := range c.servers {
		if s != nil {
			errs = append(errs, s.Close())
			c.servers[i] = nil
		}
	}
	return errors.Join(errs...)
}

// server is the client of one server.
func (c *Client) server(i int) (*clientv3.Client, error) {
	c.dialing[i].Lock()
	defer c.dialing[i].Unlock()
	if s, err := c.made(i, nil); s != nil || err != nil {
		return s, err
	}
	go c.diagnose(i) // so that the first failure has its reason
	s, err := clientv3.New(clientv3.Config{
		Endpoints: []string{c.Endpoints[i]}, TLS: c.tls, Username: c.User, Password: c.Password,
		// With a password New asks for a token at once.
		DialTimeout: c.Timeout, MaxUnaryRetries: 1, BackoffWaitBetween: 10 * time.Millisecond,
		Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			// A server that comes back is found within a second.
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second, Backoff: backoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}}),
			grpc.WithUserAgent("postern"),
			grpc.WithContextDialer(dialer(2 * c.Timeout)),
		},
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.made(i, s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// made is the client of one server, if there is one, or becomes it.
func (c *Client) made(i int, s *clientv3.Client) (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, context.Canceled
	}
	if s != nil {
		c.servers[i] = s
	}
	return c.servers[i], nil
}

// Do calls fn with a server's client, and with the next one's if the first does not answer in
// time. fn is asked to do nothing twice that must be done once. What a server
// refuses is not asked of others; the error matches ErrRefused then.
func (c *Client) Do(ctx context.Context, fn func(context.Context, *clientv3.Client) error) error {
	var errs []error
	for _, i := range c.order() {
		err := c.one(ctx, i, fn)
		if err == nil || answered(err) {
			c.mu.Lock()
			c.first = i
			c.mu.Unlock()
			return err
		}
		c.diagnose(i)
		errs = append(errs, fmt.Errorf("%s: %w", c.Endpoints[i], c.explained(i, err)))
		if ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("no etcd server answers: %w", errors.Join(errs...))
}

func (c *Client) one(ctx context.Context, i int, fn func(context.Context, *clientv3.Client) error) error {
	s, err := c.server(i)
	if err != nil {
		return refused(err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return refused(fn(ctx, s))
}

// order is that in which the servers are asked: the one that answered last comes first, those
// to which there is no connection come last.
func (c *Client) order() (list []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var without []int
	for n := range c.servers {
		i := (c.first + n) % len(c.servers)
		if s := c.servers[i]; s != nil && s.ActiveConnection().GetState() == connectivity.TransientFailure {
			without = append(without, i)
		} else {
			list = append(list, i)
		}
	}
	return append(list, without...)
}

// answered says whether an error is a server's answer, which others would give as well.
func answered(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, errAnswer)
}

// errAnswer is matched by what fn says itself.
var errAnswer = errors.New("answered")

// refused adds ErrRefused to what is no failure of the network.
func refused(err error) error {
	for _, no := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthNotEnabled} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	return err
}
