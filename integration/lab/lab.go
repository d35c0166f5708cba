//go:build linux

// Package lab makes two throw-away network namespaces joined by a veth pair.
// They are anonymous: the kernel removes them when the last descriptor closes,
// also when the process is killed. The host's own namespace is never touched.
package lab

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Pair is two namespaces, each with one end of a veth pair, up.
type Pair struct {
	NS  [2]netns.NsHandle
	Ifi [2]*net.Interface
}

// New makes a pair. It needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the caller's
// user namespace. The caller closes it.
func New() (p *Pair, err error) {
	p = &Pair{NS: [2]netns.NsHandle{netns.None(), netns.None()}}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	for i := range p.NS {
		if p.NS[i], err = create(); err != nil {
			return nil, fmt.Errorf("lab: network namespace: %w", err)
		}
	}
	if err := p.wire("near", "far"); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return p, nil
}

// Add adds a device to namespace i, and sets it up.
func (p *Pair) Add(i int, link netlink.Link) (ifi *net.Interface, err error) {
	name := link.Attrs().Name
	err = p.Do(i, func() error {
		if err := netlink.LinkAdd(link); err != nil {
			return err
		}
		added, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(added); err != nil {
			return err
		}
		ifi, err = net.InterfaceByName(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: %s %s: %w", link.Type(), name, err)
	}
	return ifi, nil
}

// Running waits until a device of namespace i, of a kind that tells of its carrier, can send.
func (p *Pair) Running(i int, name string) error {
	if err := p.Do(i, func() error { return running(name) }); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// running waits until the kernel has seen the carrier (linkwatch_do_dev): before
// that the device has no queueing discipline, and frames are lost in silence.
func running(name string) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s has no carrier after 5 s", name)
		}
	}
}

func (p *Pair) up(i int, name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	p.Ifi[i] = &net.Interface{Index: link.Attrs().Index, Name: name, MTU: link.Attrs().MTU, HardwareAddr: link.Attrs().HardwareAddr}
	return nil
}

// Close gives the namespaces back to the kernel.
func (p *Pair) Close() {
	for i := range p.NS {
		if p.NS[i].IsOpen() {
			p.NS[i].Close()
		}
	}
}

// Do runs fn on a thread inside namespace i (0 or 1). A socket that fn opens
// stays in that namespace.
func (p *Pair) Do(i int, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		// A test that fails inside fn ends this goroutine there.
		err := errGoexit
		defer func() { done <- err }()
		// Never unlocked: the runtime ends the thread, so that no other goroutine
		// is run in the wrong namespace.
		runtime.LockOSThread()
		if err = netns.Set(p.NS[i]); err == nil {
			err = errGoexit
			err = fn()
		}
	}()
	return <-done
}

var errGoexit = errors.New("lab: the function did not return")

func create() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

// Sink adds to namespace i an Ethernet device, up, that swallows what is sent on
// it: an ifb that nothing is redirected to (ifb_xmit). Unlike dummy, kernels that
// can run the gate have it.
func (p *Pair) Sink(i int, name string) (ifi *net.Interface, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return p.Add(i, &netlink.Ifb{LinkAttrs: attrs})
}
