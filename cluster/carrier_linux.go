package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Interfaces is a Carrier: it has addresses, each alone (/32), on its interface.
type Interfaces map[netip.Addr]string

// Add implements Carrier.
func (i Interfaces) Add(a netip.Addr) error {
	return i.do(a, addMarked)
}

// Delete implements Carrier. That it is not there is no error.
func (i Interfaces) Delete(a netip.Addr) error {
	err := i.do(a, netlink.AddrDel)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

func (i Interfaces) do(a netip.Addr, fn func(netlink.Link, *netlink.Addr) error) error {
	link, err := netlink.LinkByName(i[a])
	if err == nil {
		err = fn(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		return fmt.Errorf("%v on %s: %w", a, i[a], err)
	}
	return nil
}

// Only takes off their interfaces those of the addresses that are not to stay there.
func (i Interfaces) Only(stay func(netip.Addr) bool) error {
	done := map[string]bool{}
	var errs []error
	for _, name := range i {
		if done[name] {
			continue
		}
		done[name] = true
		link, err := netlink.LinkByName(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list, err := netlink.AddrList(link, netlink.FAMILY_V4)
		errs = append(errs, err)
		for _, have := range list {
			a, _ := netip.AddrFromSlice(have.IP.To4())
			if ones, _ := have.Mask.Size(); ones == 32 && i[a] == name && !stay(a) {
				errs = append(errs, i.Delete(a))
			}
		}
	}
	return errors.Join(errs...)
}
