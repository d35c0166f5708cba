package afpacket

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFruitless: where poll(2) says at once that the socket is writable, and still nothing is taken, as of a small ring while the
// device's queue is stopped, it is not asked all the time.
func TestFruitless(t *testing.T) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0) // always writable, as that ring's is
	if err != nil {
		t.Fatal(err)
	}
	s := &sendSocket{fd: fd}
	defer s.Close()
	const wait = 100 * time.Millisecond
	if err := s.SetWriteDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	asked := 0
	if err := s.Write(func(uintptr) bool { asked++; return false }); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want a deadline that is over", err)
	}
	if most := 10 * int(wait/time.Millisecond); asked > most {
		t.Errorf("asked %d times in %v, at most %d make sense", asked, wait, most)
	}
	// What is taken the second time waits for nothing, and a Close ends one that waits.
	if err := s.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	asked = 0
	if err := s.Write(func(uintptr) bool { asked++; return asked == 2 }); err != nil {
		t.Error(err)
	}
	ended := make(chan error)
	go func() { ended <- s.Write(func(uintptr) bool { return false }) }()
	time.Sleep(5 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want a closed socket", err)
	}
}
