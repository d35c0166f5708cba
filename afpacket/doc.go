// Package afpacket is the in-process door: packet sockets whose frames pass the
// firewall before the kernel gets them.
//
// Listen gives a net.PacketConn that takes the place of one from
// github.com/mdlayher/packet. Every frame is copied, the copy is classified, and
// the copy is what is transmitted: a caller who changes its buffer meanwhile
// changes nothing. In Datagram mode the Ethernet header is built here, so that
// what was classified is byte for byte what is sent.
//
// # The data path
//
// It is the kernel's (net/core/dev.c, __dev_queue_xmit), in this process:
//
//		Conn -> Config.Firewall -> hooks (Attach) -> lower layer (AttachLower) -> device
//
//	  - Hooks belong to an interface in a network namespace. A global switch makes
//	    them cost one atomic load as long as there are none; once any interface has
//	    some, one without pays a nil check besides.
//	  - `forward` and `duplicate` leave through another interface and are classified
//	    again by its hooks, as nf_fwd_netdev_egress and nf_dup_netdev_egress do. A
//	    copy that is refused there does not touch the original. Config.Firewall
//	    belongs to the Conn's own interface and does not see them a second time.
//	  - What the lower layer re-injects elsewhere is not classified there
//	    (nf_skip_egress). The mark is cleared before the device: a frame on an
//	    Overlay is classified as itself and, encapsulated, once more on the underlay.
//	  - A frame changes its interface at most three times (NF_RECURSION_LIMIT).
//	  - `mark` is the transmitted frame's SO_MARK: tc and nftables read it as
//	    `meta mark`. It needs CAP_NET_RAW (Linux 5.17) or CAP_NET_ADMIN.
//	  - `set` rewrites the copy; later hooks see the rewritten frame.
//
// # What it is not
//
// It guards a process against its own code and libraries. A process with
// CAP_NET_RAW can open another socket; to stop that is the work of the kernel
// engine. Conn gives its descriptor to nobody, and so has no SyscallConn: there is
// no way to hand out a descriptor that can be read but not sent on. What people
// want it for is in SetBPF, SetPromiscuous, JoinGroup, Stats and SetReadOption.
package afpacket
