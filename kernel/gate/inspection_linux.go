package gate

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inspectionMTU is lo's, the largest there is. Neither nf_fwd_netdev_egress nor
// bpf_redirect compare a frame's length with it; the helpers that lengthen a frame do
// (__bpf_skb_max_len).
const inspectionMTU = 65536

// Inspection finds or makes the inspection device, up and fail-closed as the package
// says, and returns its interface index. One is enough for a namespace: nft's fwd
// writes the guarded device's index to skb->skb_iif (nft_fwd_netdev_eval), which
// eBPF reads as skb->ingress_ifindex. A frame that was sent to the inspection device
// itself has 0 there.
func (g Gate) Inspection() (index int, err error) {
	if err := g.check(); err != nil {
		return 0, err
	}
	err = g.with(func(c conn) error {
		// Nothing is made where the table is someone else's.
		if _, _, err := g.find(c); err != nil {
			return err
		}
		index, err = g.inspection()
		return err
	})
	return index, err
}

func (g Gate) inspection() (int, error) {
	h, err := g.rtnetlink()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	link, err := g.device(h)
	if err == nil && link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = g.Name, inspectionMTU, g.hardwareAddr()
		err = h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
		switch {
		case errors.Is(err, unix.EOPNOTSUPP):
			return 0, fmt.Errorf("inspection device %s: ifb (CONFIG_IFB) %w: %w", g.Name, ErrNotSupported, err)
		case err != nil && !errors.Is(err, unix.EEXIST): // someone made it in the meantime
			return 0, fmt.Errorf("create the inspection device %s: %w", g.Name, err)
		}
		link, err = g.device(h)
	}
	if err == nil && link == nil {
		err = fmt.Errorf("the inspection device %s vanished as it was made", g.Name)
	}
	if err != nil {
		return 0, err
	}
	if err := prepare(h, link); err != nil {
		return 0, fmt.Errorf("inspection device %s: %w", g.Name, err)
	}
	return link.Attrs().Index, nil
}

// device returns the inspection device, nil if there is none, and an error that matches
// ErrForeign if what bears its name is not ours.
func (g Gate) device(h *netlink.Handle) (netlink.Link, error) {
	link, err := h.LinkByName(g.Name)
	var none netlink.LinkNotFoundError
	switch {
	case errors.As(err, &none):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for the inspection device %s: %w", g.Name, err)
	case link.Type() != "ifb" || !bytes.Equal(link.Attrs().HardwareAddr, g.hardwareAddr()):
		return nil, fmt.Errorf("interface %s %w: it is of type %s with hardware address %s, the inspection device an ifb with %s; give the gate another name",
			g.Name, ErrForeign, link.Type(), link.Attrs().HardwareAddr, g.hardwareAddr())
	}
	return link, nil
}

// hardwareAddr is the owner's mark. Unlike an alias, it is there from the moment that the
// device is.
func (g Gate) hardwareAddr() net.HardwareAddr {
	sum := sha256.Sum256([]byte(g.Owner))
	sum[0] = sum[0]&^1 | 2 // locally administered, not a group
	return sum[:6]
}

// prepare closes the device's own way out, keeps IPv6 from speaking on it, and sets it up.
func prepare(h *netlink.Handle, link netlink.Link) error {
	// A kernel without IPv6 has no such setting, and needs none.
	_ = h.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
	if link.Attrs().MTU < inspectionMTU {
		if err := h.LinkSetMTU(link, inspectionMTU); err != nil {
			return fmt.Errorf("MTU %d: %w", inspectionMTU, err)
		}
	}
	if err := blackhole(h, link); err != nil {
		return fmt.Errorf("queueing discipline blackhole: %w", err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	return nil
}

func blackhole(h *netlink.Handle, link netlink.Link) error {
	qdiscs, err := h.QdiscList(link)
	if err != nil {
		return err
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent == netlink.HANDLE_ROOT && q.Type() == "blackhole" {
			return nil // it cannot be replaced by itself
		}
	}
	return h.QdiscReplace(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		QdiscType:  "blackhole",
	})
}

func (g Gate) removeInspection() error {
	h, err := g.rtnetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	link, err := g.device(h)
	if err != nil || link == nil {
		return err
	}
	if err := h.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete the inspection device %s: %w", g.Name, err)
	}
	return nil
}

// interfaces returns the inspection device's index, 0 if there is none that is ours, and
// the index of each interface.
func (g Gate) interfaces() (inspection int, names map[string]int, err error) {
	h, err := g.rtnetlink()
	if err != nil {
		return 0, nil, err
	}
	defer h.Close()
	links, err := h.LinkList()
	if err != nil {
		return 0, nil, fmt.Errorf("list the interfaces: %w", err)
	}
	names = map[string]int{}
	for _, l := range links {
		names[l.Attrs().Name] = l.Attrs().Index
		if l.Attrs().Name == g.Name && l.Type() == "ifb" && bytes.Equal(l.Attrs().HardwareAddr, g.hardwareAddr()) {
			inspection = l.Attrs().Index
		}
	}
	return inspection, names, nil
}

func (g Gate) rtnetlink() (*netlink.Handle, error) {
	ns := netns.None()
	if g.NetNS != 0 {
		ns = netns.NsHandle(g.NetNS)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return h, nil
}
