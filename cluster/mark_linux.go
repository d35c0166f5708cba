package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// An address's protocol says who has put it there (Linux 5.18; `ip address` shows it as proto). Older kernels do not keep it, and
// nothing is marked.
const (
	ifaProto = 11 // IFA_PROTO, linux/if_addr.h
	ownProto = 80 // nobody's in iproute2's rt_addrprotos
)

// addMarked has an address alone (/32) on an interface, marked as the agent's.
func addMarked(link netlink.Link, a *netlink.Addr) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Index, msg.Prefixlen = uint32(link.Attrs().Index), 32
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, a.IP.To4()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, a.IP.To4()))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{ownProto}))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// marked are the addresses of the network namespace that an agent has put there, each with its interface's index.
func marked() (list []netlink.Addr, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_INET))
	dump, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	for _, m := range dump {
		msg := nl.DeserializeIfAddrmsg(m)
		attrs, bad := nl.ParseRouteAttr(m[msg.Len():])
		if bad != nil {
			return list, bad
		}
		var a []byte
		ours := false
		for _, at := range attrs {
			switch {
			case at.Attr.Type == unix.IFA_LOCAL && len(at.Value) == 4:
				a = at.Value
			case at.Attr.Type == ifaProto && len(at.Value) == 1:
				ours = at.Value[0] == ownProto
			}
		}
		if ours && a != nil && msg.Prefixlen == 32 {
			list = append(list, netlink.Addr{IPNet: &net.IPNet{IP: a, Mask: net.CIDRMask(32, 32)}, LinkIndex: int(msg.Index)})
		}
	}
	return list, err
}

// Forget takes off their interfaces the addresses that an agent before has put there, and that are not among these: it was killed, and
// its configuration has changed.
func (i Interfaces) Forget() error {
	list, err := marked()
	errs := []error{err}
	for _, have := range list {
		a, _ := netip.AddrFromSlice(have.IP.To4())
		link, err := netlink.LinkByIndex(have.LinkIndex)
		if err == nil && i[a] != link.Attrs().Name {
			err = netlink.AddrDel(link, &have)
		}
		if err != nil && !notThere(err) {
			errs = append(errs, fmt.Errorf("%v: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

// notThere says that an address, or its interface, is not there any more.
func notThere(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) || errors.As(err, new(netlink.LinkNotFoundError))
}
