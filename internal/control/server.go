//go:build linux

package control

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Server is the owner of a socket.
type Server struct {
	lock     *os.File
	listener *net.UnixListener
	http     *http.Server
}

// Listen takes the socket. It fails with a RunningError where another process has it;
// a socket that a killed one left behind is made anew.
func Listen(path string, service Service) (*Server, error) {
	return ListenHandler(path, service.handler())
}

// ListenHandler is Listen for what answers by other terms than a postern run.
func ListenHandler(path string, h http.Handler) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("directory of the control socket: %w", err)
	}
	// The lock decides, not the socket: it goes with its owner, however that ends. It
	// is never removed, or two could each hold one of that name.
	lock, err := os.OpenFile(strings.TrimSuffix(path, ".sock")+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the control socket: %w", err)
	}
	l, err := listen(path, lock)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Server{lock, l, newHTTP(h)}, nil
}

func listen(path string, lock *os.File) (*net.UnixListener, error) {
	switch err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		running := &RunningError{}
		if c, err := Dial(path); err == nil {
			running.PID = c.PID
			c.Close()
		}
		return nil, running
	case err != nil:
		return nil, fmt.Errorf("lock of the control socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := listenPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}

// listenPrivate binds and listens in two steps, so that the socket has its mode before
// anyone can connect, whatever the umask is.
func listenPrivate(path string) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(true)
	return ul, nil
}

// Serve answers until Close.
func (s *Server) Serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Close ends Serve and all that it answers, and gives the socket away.
func (s *Server) Close() error {
	// The listener removes the socket, and the lock goes last: whoever takes it next
	// finds no socket of ours, and we remove none of theirs.
	return errors.Join(s.http.Close(), ignoreClosed(s.listener.Close()), s.lock.Close())
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
