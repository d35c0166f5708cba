package gate

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Probe says whether the kernel of this namespace (a descriptor, or 0) can have a gate, and
// changes nothing: it sends a transaction without an end, which the kernel checks and aborts.
// Its error matches ErrNotSupported and says what is missing, os.ErrPermission where
// only CAP_NET_ADMIN is.
func Probe(ns int) error {
	// A name that no device can have, for a table that never is.
	g := Gate{Name: "gate/probe", NetNS: ns}
	return g.with(func(c conn) error {
		b := &batch{}
		d := Device{Name: "lo"}
		g.newTable(b)
		g.newChain(b, d, 0)
		for _, r := range rules(d, 1, g.Name) {
			g.newRule(b, chainName(d, 0), r)
		}
		err := errStale
		for errors.Is(err, errStale) {
			var generation uint32
			if generation, err = c.generation(); err == nil {
				err = c.try(b, generation)
			}
		}
		if err != nil {
			return err
		}
		return g.probeIfb()
	})
}

// probeIfb asks for an ifb with more queues than any kernel allows: one that does not know
// the type says so before it counts (rtnl_newlink).
func (g Gate) probeIfb() error {
	h, err := g.rtnetlink()
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.NumTxQueues = "gate-probe", 1<<20
	err = h.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("ifb (CONFIG_IFB) %w: %w", ErrNotSupported, err)
	case err == nil:
		return h.LinkDel(&netlink.Ifb{LinkAttrs: attrs})
	case errors.Is(err, unix.EINVAL):
		return nil
	}
	return fmt.Errorf("ifb: %w", err)
}
