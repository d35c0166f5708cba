// Package gate puts a door at the end of a device's way out, where every frame
// that an egress hook can see must pass, and leads the ones to be judged through
// a funnel: an nft table of family netdev, with a chain on the egress hook of
// each guarded device, that forwards them to an inspection device (an ifb) in the
// same network namespace. What is attached to that device's tcx egress judges
// them, and lets one go by bpf_redirect(skb->ingress_ifindex, 0).
//
// The hook is older in the way of a frame than tc and newer than PACKET_QDISC_BYPASS:
// it also sees what senders make the kernel send past tc (nf_hook_direct_egress).
//
// The gate refuses to know what is in a frame. It parses nothing, so there is
// nothing to lie to. It asks one thing only: does the frame have a route? The IP
// stack's own frames have one and no packet socket can give one to its frame.
// It does not ask whether a frame has a socket (meta skuid): the answer is no for
// the frames of a macvlan whose sender sits in another network namespace, and for
// frames that left a queue after their sender had closed its socket.
//
// It fails closed. Nothing but bpf_redirect leads out of the inspection device:
// what is not redirected, be it refused, be it that no program is attached, ends in
// the device's root queueing discipline, blackhole. (Without it the ifb itself
// would send the frame on, past every hook: ifb_ri_tasklet.)
//
// What is judged on the inspection device, and how, and the policy, are not known here.
package gate

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNotSupported is matched by errors that say what the kernel lacks.
	ErrNotSupported = errors.New("not supported by this kernel")
	// ErrForeign is matched by errors that name the table or device that bears
	// the gate's name but not its mark. It was left as it is.
	ErrForeign = errors.New("belongs to someone else")
)

// Gate names the gate of one network namespace. Two values that are equal mean
// the same gate, in whatever process: it lives in the kernel, and outlives its maker.
// Methods may be called from several goroutines and processes at once; each change
// is made whole, and the last one stays.
type Gate struct {
	// Name is that of the nft table and of the inspection device: a valid
	// interface name of at most 15 bytes.
	Name string
	// Owner is the mark that tells our table and device from others' of the same
	// name. It is the table's comment (at most 127 bytes), and the inspection
	// device's hardware address is made from it.
	Owner string
	// NetNS is a descriptor of the network namespace; 0 means that of the calling
	// thread. It stays the caller's.
	NetNS int
}

// Senders says which frames are led to the inspection device.
type Senders uint8

const (
	// PacketSockets is every frame without a route: those of packet sockets of
	// whatever network namespace, and with them the kernel's own ARP and bridged
	// frames, which an nft rule cannot tell from them; a tcx program can, by
	// bpf_sk_fullsock(skb->sk)->family.
	PacketSockets Senders = iota
	// All is every frame.
	All
)

// String returns "packet-sockets" or "all".
func (s Senders) String() string {
	if s == All {
		return "all"
	}
	return "packet-sockets"
}

// Device is a guarded device, or many.
type Device struct {
	// Name is the interface's name, or the beginning of many names and a "*"
	// (NFTA_DEVICE_PREFIX, Linux 6.17). Since Linux 6.16 the kernel follows the name
	// by itself: a device that appears under it is guarded before its first frame, and
	// one that is renamed away is not any more. Before, the device must exist, and
	// its chain ends with it.
	Name    string
	Senders Senders
}

// Config is what Install makes of the gate.
type Config struct {
	Devices []Device
	// Priority orders the gate's chains among the hooks of other tables: those with
	// smaller numbers come first, and may take frames away before the gate sees them.
	Priority int32
}

// State is what Status found.
type State struct {
	// Installed says whether there is a table with the gate's mark.
	Installed bool
	// Inspection is the interface index of the inspection device, 0 if there is none.
	Inspection int
	Devices    []DeviceState
}

// DeviceState is a chain of the gate's table.
type DeviceState struct {
	Device
	Priority int32
	// Indexes are the interfaces that the name means now. A tcx program on the
	// inspection device reads the one that a frame came from in skb->ingress_ifindex.
	Indexes []int
	// Fault says why the chain does not do what it should, e.g. that its rules were
	// changed or that it forwards to another device; "" when it does.
	Fault string
}

// Guarded returns the interfaces whose frames are led to the inspection device, with
// the senders each is guarded from.
func (s State) Guarded() map[int]Senders {
	guarded := map[int]Senders{}
	for _, d := range s.Devices {
		for _, index := range d.Indexes {
			if d.Fault == "" {
				guarded[index] = max(guarded[index], d.Senders)
			}
		}
	}
	return guarded
}

func (g Gate) check() error {
	switch {
	case !validName(g.Name):
		return fmt.Errorf("gate: %q cannot be the name of a device; take 1 to 15 letters or digits", g.Name)
	case g.Owner == "" || len(g.Owner) > 127 || strings.ContainsRune(g.Owner, 0):
		return fmt.Errorf("gate %s: the owner's mark %q must have 1 to 127 bytes and no NUL", g.Name, g.Owner)
	}
	return nil
}

func (g Gate) checkConfig(cfg Config) error {
	seen := map[string]bool{}
	for _, d := range cfg.Devices {
		switch {
		case !validName(strings.TrimSuffix(d.Name, "*")) && d.Name != "*":
			return fmt.Errorf("gate %s: %q is neither an interface's name nor the beginning of one with a * at its end", g.Name, d.Name)
		case d.Name == g.Name:
			return fmt.Errorf("gate %s: the inspection device cannot be guarded by itself", g.Name)
		case seen[d.Name]:
			return fmt.Errorf("gate %s: %s is named twice", g.Name, d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

// validName is dev_valid_name, without the "*" that we give a meaning to.
func validName(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." && !strings.ContainsAny(name, "/:* \t\n\v\f\r\x00")
}

// prefix returns the beginning that a pattern stands for.
func (d Device) prefix() (string, bool) {
	return strings.CutSuffix(d.Name, "*")
}

func (d Device) matches(name string) bool {
	if prefix, ok := d.prefix(); ok {
		return strings.HasPrefix(name, prefix)
	}
	return d.Name == name
}
