package afpacket

import (
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestLinks: the kernel tells of a change, and where it may not, time does.
func TestLinks(t *testing.T) {
	p := newLab(t)
	var l *links
	in(t, p, 0, func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err := netnsCookie(fd)
		l = watchLinks(cookie)
		if again := watchLinks(cookie); again != l {
			t.Error("two of one namespace")
		}
		return err
	})
	l.release()
	grows := func(what string, least uint64) {
		t.Helper()
		for end := time.Now().Add(5 * time.Second); l.changes.Load() < least; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d", what, l.changes.Load())
			}
		}
	}
	if l.file == nil {
		t.Fatal("no rtnetlink socket")
	}
	before := l.changes.Load()
	in(t, p, 0, func() error {
		link, err := netlink.LinkByName("near")
		return errors.Join(err, netlink.LinkSetAlias(link, "another"))
	})
	grows("a change", before+1)
	// Whatever else the socket says, changes are not missed: they are assumed.
	l.file.SetReadDeadline(time.Now())
	grows("by time", l.changes.Load()+3)
	l.release()
	select {
	case <-l.done:
	default:
		t.Error("it goes on without users")
	}
}
