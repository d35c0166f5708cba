package matrix

import (
	"errors"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/evasions"
)

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// add makes a device in a namespace. mac is its address, or nil.
func (w *world) add(t testing.TB, ns int, l netlink.Link, carrier bool) device {
	t.Helper()
	ifi, err := w.Add(ns, l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		cannot(t, "needs a kernel with "+l.Type()+": "+err.Error())
	}
	must(t, err)
	if carrier {
		must(t, w.Running(ns, ifi.Name))
	}
	return device{ifi.Index, ifi.Name, [6]byte(ifi.HardwareAddr)}
}

func macvlan(t *testing.T, w *world) device { return w.macvlan(t, 0, "upper") }

func macvlanAway(t *testing.T, w *world) device { return w.macvlan(t, 1, "upper") }

func (w *world) macvlan(t testing.TB, ns int, name string) device {
	t.Helper()
	a := attrs(name)
	a.ParentIndex, a.Namespace = w.near.index, netlink.NsFd(w.NS[ns])
	must(t, w.Do(0, func() error {
		err := netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE})
		if errors.Is(err, unix.EOPNOTSUPP) {
			cannot(t, "needs a kernel with macvlan")
		}
		return err
	}))
	return w.up(t, ns, name)
}

// up sets a device up that is there.
func (w *world) up(t testing.TB, ns int, name string) (d device) {
	t.Helper()
	must(t, w.Do(ns, func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		d = device{l.Attrs().Index, name, [6]byte(l.Attrs().HardwareAddr)}
		return netlink.LinkSetUp(l)
	}))
	must(t, w.Running(ns, name))
	return d
}

func belowMacvlan(t *testing.T, w *world) device {
	macvlan(t, w)
	return w.near
}

func bridge(t *testing.T, w *world) device { return w.bridge(t, w.near) }

// bridgeOfTwo: the newer port comes first when a frame is flooded (br_add_if).
func bridgeOfTwo(t *testing.T, w *world) device {
	must(t, w.Do(0, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs("other"), PeerName: "beyond", PeerNamespace: netlink.NsFd(w.NS[1])})
	}))
	must(t, w.Do(1, func() error {
		l, err := netlink.LinkByName("beyond")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	}))
	return w.bridge(t, w.up(t, 0, "other"), w.near)
}

func bridgeOverMacvlan(t *testing.T, w *world) device {
	return w.bridge(t, w.macvlan(t, 0, "between"))
}

func fourDeep(t *testing.T, w *world) device {
	a := attrs("top")
	a.ParentIndex = bridgeOverMacvlan(t, w).index
	must(t, w.Do(0, func() error {
		return netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE})
	}))
	return w.up(t, 0, a.Name)
}

// bridge makes a bridge over ports, with the address of near.
func (w *world) bridge(t testing.TB, ports ...device) device {
	t.Helper()
	a := attrs("upper")
	a.HardwareAddr = net.HardwareAddr(w.near.mac[:])
	off := false
	b := &netlink.Bridge{LinkAttrs: a, MulticastSnooping: &off}
	d := w.add(t, 0, b, false)
	must(t, w.Do(0, func() error {
		for _, p := range ports {
			port, err := netlink.LinkByIndex(p.index)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMasterByIndex(port, d.index); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, w.Running(0, d.name))
	return d
}

// vlan makes a VLAN device. A kernel without them has a program push the tag on a macvlan.
func vlan(t *testing.T, w *world) device {
	a := attrs("upper")
	a.ParentIndex = w.near.index
	if ifi, err := w.Add(0, &netlink.Vlan{LinkAttrs: a, VlanId: evasions.VLAN}); err == nil {
		must(t, w.Running(0, "upper"))
		return device{ifi.Index, ifi.Name, [6]byte(ifi.HardwareAddr)}
	} else if !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	t.Log("this kernel has no VLAN devices: a tcx program pushes the tag on a macvlan, and senders that bypass it are left out")
	w.tagsByTC = true
	d := macvlan(t, w)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, int32(htons(unix.ETH_P_8021Q))), asm.Mov.Imm(asm.R3, evasions.VLAN), asm.FnSkbVlanPush.Call(),
		asm.Mov.Imm(asm.R0, -1), asm.Return(), // TCX_NEXT
	}})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	must(t, w.Do(0, func() error {
		l, err := link.AttachTCX(link.TCXOptions{Interface: d.index, Program: p, Attach: ebpf.AttachTCXEgress})
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	return d
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// vxlan makes an overlay over near whose other end is the far host.
func vxlan(t *testing.T, w *world) device {
	far := net.IPv4(198, 18, 0, 2)
	for ns := range w.NS {
		must(t, w.Do(ns, func() error {
			l, err := netlink.LinkByIndex(w.Ifi[ns].Index)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(l, 1600) // a whole frame and its tunnel's headers
		}))
	}
	must(t, w.Do(0, func() error {
		l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: w.near.index}}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(198, 18, 0, 1), Mask: net.CIDRMask(24, 32)}}); err != nil {
			return err
		}
		return netlink.NeighAdd(&netlink.Neigh{LinkIndex: w.near.index, State: netlink.NUD_PERMANENT, IP: far, HardwareAddr: w.Ifi[1].HardwareAddr})
	}))
	a := attrs("overlay")
	a.HardwareAddr = net.HardwareAddr(w.near.mac[:])
	a.MTU = 1500
	return w.add(t, 0, &netlink.Vxlan{LinkAttrs: a, VxlanId: 42, VtepDevIndex: w.near.index, SrcAddr: net.IPv4(198, 18, 0, 1), Group: far, Port: 4789}, false)
}

func bridgeOverVXLAN(t *testing.T, w *world) device { return w.bridge(t, vxlan(t, w)) }

func belowBridge(t *testing.T, w *world) device {
	d := vxlan(t, w)
	w.bridge(t, d)
	return d
}
