//go:build linux

package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespace is an anonymous network namespace, its loopback up.
type Namespace struct{ NS netns.NsHandle }

// NewNamespace makes one. The caller closes it.
func NewNamespace() (*Namespace, error) {
	ns, err := create()
	if err != nil {
		return nil, fmt.Errorf("lab: network namespace: %w", err)
	}
	n := &Namespace{ns}
	if err := n.Do(func() error { return setUp("lo") }); err != nil {
		n.Close()
		return nil, fmt.Errorf("lab: %w", err)
	}
	return n, nil
}

// Close gives the namespace back to the kernel, unless a process is in it.
func (n *Namespace) Close() {
	if n.NS.IsOpen() {
		n.NS.Close()
	}
}

// Do runs fn on a thread inside the namespace, as Pair.Do does.
func (n *Namespace) Do(fn func() error) error {
	p := Pair{NS: [2]netns.NsHandle{n.NS, netns.None()}}
	return p.Do(0, fn)
}

// Bridge adds an Ethernet bridge, up, with an IPv4 address if cidr is not "".
func (n *Namespace) Bridge(name, cidr string) error {
	err := n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		if cidr != "" {
			if err := address(name, cidr); err != nil {
				return err
			}
		}
		return setUp(name)
	})
	if err != nil {
		return fmt.Errorf("lab: bridge %s: %w", name, err)
	}
	return nil
}

// Plug joins member to a bridge by a veth pair, named port at the bridge and name at the
// member, where it gets an address. It returns when both ends have a carrier.
func (n *Namespace) Plug(bridge, port string, member *Namespace, name, cidr string) (at *net.Interface, err error) {
	err = n.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = port
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: name, PeerNamespace: netlink.NsFd(member.NS)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		br, err := netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(veth, br); err != nil {
			return err
		}
		if err := setUp(port); err != nil {
			return err
		}
		at, err = net.InterfaceByName(port)
		return err
	})
	if err == nil {
		err = member.Do(func() error {
			if err := address(name, cidr); err != nil {
				return err
			}
			if err := setUp(name); err != nil {
				return err
			}
			return running(name)
		})
	}
	if err == nil {
		err = n.Do(func() error { return running(port) })
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %s at %s: %w", name, bridge, err)
	}
	return at, nil
}

// Link sets an interface up or down.
func (n *Namespace) Link(name string, up bool) error {
	return n.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func address(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return netlink.AddrReplace(link, addr)
}
