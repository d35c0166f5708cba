package tc

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// priority is the first. The filters of one priority are of one type and one protocol
	// (tc_new_tfilter): before ours there are eBPF filters at most, which State.Before can name.
	priority = 1
	// handle is "post": filters that are added without one get low ones.
	handle = 0x706f7374
	// mark ends the name of our filters where the qdisc was made by us, since a clsact
	// qdisc itself has room for no name: its handle is always the same. A process that ends
	// before its filter is there leaves an empty qdisc that nobody claims.
	mark = "+clsact"
)

// parent is the hook of clsact.
func (d Direction) parent() uint32 {
	if d == Ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

// filterName is what tc(8) shows. It says the direction, since an ingress qdisc answers for
// egress as well (ingress_tcf_block): a filter there is not what it seems.
func (d Direction) filterName() string { return "postern-" + d.String() }

// clsact is our filter, and what is asked before it.
type clsact struct {
	a      Attachment
	h      *netlink.Handle
	name   string             // of the interface
	filter *netlink.BpfFilter // nil if there is none
	before []ebpf.ProgramID
	taken  string // what is in our place
}

func device(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func rtnetlink(ns int) (h *netlink.Handle, err error) {
	err = inNetNS(ns, func() error {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return h, nil
}

func (a Attachment) examineClsact(h *netlink.Handle) (*clsact, error) {
	c := &clsact{a: a, h: h}
	filters, err := h.FilterList(device(a.Interface), a.Direction.parent())
	if err != nil {
		return nil, fmt.Errorf("list the filters of clsact: %w", err)
	}
	for _, f := range filters { // in the order in which they are asked
		at := f.Attrs()
		bpf, isBPF := f.(*netlink.BpfFilter)
		switch {
		case at.Priority != priority || at.Chain != nil && *at.Chain != 0:
			// It is asked after ours, or from there.
		case a.Direction.ours(f):
			c.filter = bpf
		case !isBPF || at.Protocol != unix.ETH_P_ALL || at.Handle == handle:
			c.taken = fmt.Sprintf("a %s filter for protocol %#x, handle %#x", f.Type(), at.Protocol, at.Handle)
		case c.filter == nil:
			c.before = append(c.before, ebpf.ProgramID(bpf.Id))
		}
	}
	return c, nil
}

// ours says whether a filter is what put makes.
func (d Direction) ours(f netlink.Filter) bool {
	at := f.Attrs()
	bpf, ok := f.(*netlink.BpfFilter)
	return ok && bpf.DirectAction && (bpf.Name == d.filterName() || bpf.Name == d.filterName()+mark) &&
		at.Priority == priority && at.Handle == handle && at.Protocol == unix.ETH_P_ALL && (at.Chain == nil || *at.Chain == 0)
}

// put adds our filter, or exchanges its program (cls_bpf_change).
func (c *clsact) put(p *ebpf.Program) error {
	if c.filter != nil {
		return c.explain("exchange the program", c.h.FilterReplace(c.wanted(p, c.filter.Name)))
	}
	marked, err := c.marked()
	if err != nil {
		return err
	}
	made, err := c.makeQdisc()
	if err != nil {
		return err
	}
	if c.taken != "" {
		return fmt.Errorf("priority %d of clsact %w: it has %s; move that to another (see tc filter show dev %s %s)",
			priority, ErrForeign, c.taken, c.name, c.a.Direction)
	}
	name := c.a.Direction.filterName()
	if made || marked {
		name += mark
	}
	err = c.explain("add the filter", c.h.FilterAdd(c.wanted(p, name)))
	if err != nil && made {
		return errors.Join(err, c.removeQdisc())
	}
	return err
}

func (c *clsact) wanted(p *ebpf.Program, name string) *netlink.BpfFilter {
	return &netlink.BpfFilter{FilterAttrs: c.place(), Fd: p.FD(), Name: name, DirectAction: true}
}

func (c *clsact) place() netlink.FilterAttrs {
	return netlink.FilterAttrs{LinkIndex: c.a.Interface, Parent: c.a.Direction.parent(),
		Handle: handle, Priority: priority, Protocol: unix.ETH_P_ALL}
}

// drop removes our filter, and the qdisc that was made for it.
func (c *clsact) drop() error {
	if c.filter == nil {
		return nil
	}
	err := c.h.FilterDel(&netlink.BpfFilter{FilterAttrs: c.place(), Fd: -1})
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil // the interface has gone, or someone was faster
	}
	if err != nil {
		return c.explain("remove the filter", err)
	}
	if c.filter.Name != c.a.Direction.filterName()+mark {
		return nil
	}
	return c.removeQdisc()
}

// marked says whether the filter of ours at the other hook says that the qdisc is ours.
func (c *clsact) marked() (bool, error) {
	d := Egress + Ingress - c.a.Direction
	filters, err := c.h.FilterList(device(c.a.Interface), d.parent())
	for _, f := range filters {
		if d.ours(f) {
			return f.(*netlink.BpfFilter).Name == d.filterName()+mark, nil
		}
	}
	return false, c.explain("list the filters of "+d.String(), err)
}

func (c *clsact) qdisc() *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: c.a.Interface,
		Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
}

// makeQdisc makes a clsact qdisc where there is nothing that our filter can be added to.
func (c *clsact) makeQdisc() (made bool, err error) {
	err = c.h.QdiscAdd(c.qdisc())
	if !errors.Is(err, unix.EEXIST) {
		return err == nil, c.explain("make the qdisc clsact", err)
	}
	qdiscs, err := c.h.QdiscList(device(c.a.Interface))
	if err != nil {
		return false, c.explain("list the qdiscs", err)
	}
	for _, q := range qdiscs {
		// The qdisc ingress has one of the hooks only.
		if q.Attrs().Parent == netlink.HANDLE_CLSACT && q.Type() != "clsact" && (q.Type() != "ingress" || c.a.Direction != Ingress) {
			return false, fmt.Errorf("the qdisc %s %w: %s takes clsact in its place; if nobody needs it, remove it (tc qdisc del dev %s %s)",
				q.Type(), ErrForeign, c.a.Direction, c.name, q.Type())
		}
	}
	return false, nil
}

// removeQdisc removes the qdisc unless there are filters in it, or chains made to have some. The
// kernel does not do that in one step: who adds a filter in between loses it.
func (c *clsact) removeQdisc() error {
	for d := range directions {
		chains, err := c.h.ChainList(device(c.a.Interface), Direction(d).parent())
		if err != nil {
			return c.explain("list the chains of clsact", err)
		}
		if len(chains) > 0 {
			return nil
		}
	}
	err := c.h.QdiscDel(c.qdisc())
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return c.explain("remove the qdisc clsact", err)
}

// explain says what is missing where the kernel refused.
func (c *clsact) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		return c.a.gone(err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: it takes CAP_NET_ADMIN over the network namespace", what, err)
	case errors.Is(err, unix.ENOENT): // qdisc_create, tc_new_tfilter: unknown kind
		return fmt.Errorf("%s: clsact (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF) %w: %w", what, ErrNotSupported, err)
	case errors.Is(err, unix.EOPNOTSUPP): // __tcf_block_find
		return fmt.Errorf("%s: the qdisc clsact %w: it shares its block of filters with others; make it one without ingress_block and egress_block: %w",
			what, ErrForeign, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// listFilters is the attachments of clsact in a network namespace.
func listFilters(dir string, netns int) (found []Attachment, err error) {
	h, err := rtnetlink(netns)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	qdiscs, err := h.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("list the qdiscs: %w", err)
	}
	for _, q := range qdiscs {
		if q.Attrs().Parent != netlink.HANDLE_CLSACT {
			continue
		}
		for d := range directions {
			a := Attachment{Interface: q.Attrs().LinkIndex, Direction: Direction(d), Dir: dir, NetNS: netns}
			c, err := a.examineClsact(h)
			if err != nil {
				return found, err
			}
			if c.filter != nil {
				found = append(found, a)
			}
		}
	}
	return found, nil
}
