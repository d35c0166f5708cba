//go:build linux

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/kernel"
)

// Client asks the postern run of a network namespace.
type Client struct {
	// PID is its process.
	PID  int
	http http.Client
}

// Dial finds out who has the socket. Its error matches ErrNotRunning where nobody does,
// and os.ErrPermission where the caller may not ask.
func Dial(path string) (*Client, error) {
	conn, err := net.Dial("unix", path)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return nil, ErrNotRunning
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer conn.Close()
	cred, err := peer(conn)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Client{int(cred.Pid), http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}, nil
}

// Close gives back what the client holds.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks what is in force.
func (c *Client) Status(ctx context.Context) (*kernel.Status, error) {
	return c.status(ctx, http.MethodGet, "/status")
}

// Reload has the policy file read again, and says what is in force then.
func (c *Client) Reload(ctx context.Context) (*kernel.Status, error) {
	return c.status(ctx, http.MethodPost, "/reload")
}

// Events calls fn with each event, and with how many were lost before it, until ctx is
// done, which is no error, or fn fails. It fails with io.ErrUnexpectedEOF when the
// postern run ends.
func (c *Client) Events(ctx context.Context, fn func(e *Event, lost uint64) error) error {
	body, err := c.ask(ctx, http.MethodGet, "/events")
	if err != nil {
		return unlessDone(ctx, err)
	}
	defer body.Close()
	for dec := json.NewDecoder(body); ; {
		l := line{Event: &Event{}}
		if err := dec.Decode(&l); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return unlessDone(ctx, err)
		}
		if err := fn(l.Event, l.Lost); err != nil {
			return err
		}
	}
}

func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Client) status(ctx context.Context, method, path string) (*kernel.Status, error) {
	var s kernel.Status
	if err := c.Call(ctx, method, path, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Call asks for a value.
func (c *Client) Call(ctx context.Context, method, path string, value any) error {
	body, err := c.ask(ctx, method, path)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(value); err != nil {
		return fmt.Errorf("control socket: %s: %w", path, err)
	}
	return nil
}

func (c *Client) ask(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://postern"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	var p problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Error == "" {
		p.Error = path + ": " + resp.Status
	}
	return nil, errors.New(p.Error)
}
