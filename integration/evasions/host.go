package evasions

import (
	"net"
	"net/netip"
)

// MAC is an EUI-48 address.
type MAC [6]byte

// String gives it with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Host is who sends, and whom it knows. All addresses are IPv4.
type Host struct {
	// MAC and IP are the guarded interface's own. In the roles of a DHCP server and
	// a relay IP is its identity, as a DHCP client's it is the lease.
	MAC MAC
	IP  netip.Addr
	// VIP is a virtual address that the host owns now, VirtualMAC the VRRP address
	// that it may announce. Lost is a virtual address that it owned until lately.
	VIP, Lost  netip.Addr
	VirtualMAC MAC
	// Guest is a virtual machine on the host, or a client behind it.
	Guest MAC
	// PeerMAC and PeerIP are the victim's: the gateway, say.
	PeerMAC MAC
	PeerIP  netip.Addr
	// Server is the DHCP server that gave the host its lease. OtherServer and
	// OtherRelay are none of the host's business.
	Server, OtherServer, OtherRelay netip.Addr
	// Link is the network that all of them are on.
	Link netip.Prefix
}

// NewHost is a host in the address space for documentation, for which the
// policies are written.
func NewHost() Host {
	ip := netip.MustParseAddr
	return Host{
		MAC: MAC{0x02, 0, 0, 0, 0, 0x10}, IP: ip("192.0.2.10"),
		VIP: ip("192.0.2.20"), Lost: ip("192.0.2.21"), VirtualMAC: MAC{0, 0, 0x5e, 0, 1, 0x14},
		Guest:   MAC{0x52, 0x54, 0, 0, 0, 1},
		PeerMAC: MAC{0x02, 0, 0, 0, 0, 1}, PeerIP: ip("192.0.2.1"),
		Server: ip("192.0.2.2"), OtherServer: ip("192.0.2.3"), OtherRelay: ip("192.0.2.4"),
		Link: netip.MustParsePrefix("192.0.2.0/24"),
	}
}

// names are the addresses as a policy spells them, in the same order for every
// host.
func (h Host) names() []string {
	first := h.Link.Masked().Addr().As4()
	last := first
	for i := h.Link.Bits(); i < 32; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return []string{
		h.MAC.String(), h.VirtualMAC.String(), h.Guest.String(), h.PeerMAC.String(),
		h.IP.String(), h.VIP.String(), h.Lost.String(), h.PeerIP.String(),
		h.Server.String(), h.OtherServer.String(), h.OtherRelay.String(),
		netip.AddrFrom4(first).String(), netip.AddrFrom4(last).String(),
	}
}
