package afpacket

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// links is the kernel's news of the interfaces of a network namespace (rtnetlink(7), RTMGRP_LINK): while there is none, an
// interface's name and address are what they were. To ask for them costs as much as a send, and a look at the
// clock, to ask now and then, a twentieth of one.
type links struct {
	// changes counts them. An interface is asked anew by whoever finds another number than before it asked last.
	changes atomic.Uint64

	netns uint64
	refs  int // under watched.mu
	file  *os.File
	done  chan struct{}
}

// watched are the links of each namespace where an outlet is.
var watched struct {
	mu sync.Mutex
	of map[uint64]*links
}

// watchLinks finds or makes those of the calling thread's network namespace, whose cookie is netns.
func watchLinks(netns uint64) *links {
	watched.mu.Lock()
	defer watched.mu.Unlock()
	if l := watched.of[netns]; l != nil {
		l.refs++
		return l
	}
	l := &links{netns: netns, refs: 1, done: make(chan struct{})}
	var err error
	if l.file, err = linkSocket(); err != nil {
		go l.tick() // forbidden to us, perhaps
	} else {
		go l.read()
	}
	if watched.of == nil {
		watched.of = map[uint64]*links{}
	}
	watched.of[netns] = l
	return l
}

// release ends it for the last of its users.
func (l *links) release() {
	watched.mu.Lock()
	defer watched.mu.Unlock()
	if l.refs--; l.refs > 0 {
		return
	}
	delete(watched.of, l.netns)
	close(l.done)
	if l.file != nil {
		l.file.Close()
	}
}

func linkSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "rtnetlink"), nil
}

// read counts what comes, whatever it says: it is cheap to ask once too often.
func (l *links) read() {
	var b [1]byte // the rest of a message is thrown away
	for {
		_, err := l.file.Read(b[:])
		switch {
		case err == nil, errors.Is(err, unix.ENOBUFS): // more than the socket holds
			l.changes.Add(1)
		case errors.Is(err, os.ErrClosed):
			return
		default:
			l.tick()
			return
		}
	}
}

// freshFor is for how long they are believed where the kernel does not tell of changes.
const freshFor = 10 * time.Millisecond

// tick takes it that something has changed, again and again.
func (l *links) tick() {
	t := time.NewTicker(freshFor)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			l.changes.Add(1)
		case <-l.done:
			return
		}
	}
}
