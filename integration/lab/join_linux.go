package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Join makes one more namespace and joins it to namespace i of p by a veth pair, up: name
// is the end in that of p, peer the other one. Of the pair that it returns the first
// namespace is p's. The caller closes it.
func (p *Pair) Join(i int, name, peer string) (q *Pair, err error) {
	q = &Pair{NS: [2]netns.NsHandle{netns.None(), netns.None()}}
	defer func() {
		if err != nil {
			q.Close()
			q, err = nil, fmt.Errorf("lab: %s: %w", name, err)
		}
	}()
	fd, err := unix.FcntlInt(uintptr(p.NS[i]), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return q, err
	}
	q.NS[0] = netns.NsHandle(fd)
	if q.NS[1], err = create(); err != nil {
		return q, err
	}
	return q, q.wire(name, peer)
}

// wire joins the two namespaces.
func (p *Pair) wire(name, peer string) error {
	err := p.Do(0, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(p.NS[1])})
	})
	if err != nil {
		return fmt.Errorf("veth pair: %w", err)
	}
	for i, name := range []string{name, peer} {
		if err := p.Do(i, func() error { return p.up(i, name) }); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for i := range p.NS {
		if err := p.Do(i, func() error { return running(p.Ifi[i].Name) }); err != nil {
			return err
		}
	}
	return nil
}

// SetHardwareAddr gives the device at end i another hardware address.
func (p *Pair) SetHardwareAddr(i int, addr net.HardwareAddr) error {
	return p.Do(i, func() error {
		link, err := netlink.LinkByIndex(p.Ifi[i].Index)
		if err != nil {
			return fmt.Errorf("lab: %s: %w", p.Ifi[i].Name, err)
		}
		if err := netlink.LinkSetHardwareAddr(link, addr); err != nil {
			return fmt.Errorf("lab: %s: hardware address %s: %w", p.Ifi[i].Name, addr, err)
		}
		p.Ifi[i].HardwareAddr = addr
		return nil
	})
}
