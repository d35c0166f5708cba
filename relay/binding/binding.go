// Package binding holds who has which IPv4 address, and for how long: what a relay agent or
// a switch with DHCP snooping learns from the messages that pass (RFC 7513). Table is the
// state machine, Store keeps its outcome on disk.
//
// An address belongs to one client of an agent, wherever that is: who is given another's
// address takes it over. Networks that use the same addresses need an agent each.
//
// It knows messages by what Table's methods are told of them, and nothing of sockets,
// servers' pools or firewalls.
package binding

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"
)

// MAC is a hardware address.
type MAC [6]byte

// String writes it as people do.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) error {
	a, err := net.ParseMAC(string(text))
	if err != nil || len(a) != len(m) {
		return fmt.Errorf("%q is no hardware address, such as 02:00:00:00:00:01", text)
	}
	copy(m[:], a)
	return nil
}

// IPv4 is an address in host byte order.
type IPv4 uint32

// String writes it with dots.
func (a IPv4) String() string {
	return net.IPv4(byte(a>>24), byte(a>>16), byte(a>>8), byte(a)).String()
}

// MarshalText implements encoding.TextMarshaler.
func (a IPv4) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *IPv4) UnmarshalText(text []byte) error {
	ip := net.ParseIP(string(text)).To4()
	if ip == nil {
		return fmt.Errorf("%q is no IPv4 address, such as 192.0.2.1", text)
	}
	*a = IPv4(binary.BigEndian.Uint32(ip))
	return nil
}

// Place is where a client is: an interface and a VLAN on it, 0 for none.
type Place struct {
	Interface string
	VLAN      uint16
}

// String writes the VLAN behind the interface.
func (p Place) String() string {
	if p.VLAN == 0 {
		return p.Interface
	}
	return fmt.Sprintf("%s:%d", p.Interface, p.VLAN)
}

// Binding is a client's right to an address.
type Binding struct {
	IP  IPv4
	MAC MAC
	Place
	// ClientID is option 61, "" if the client has sent none.
	ClientID string
	// Server is the server identifier of the one who gave it.
	Server IPv4
	// Expiry is when the lease ends, in nanoseconds since 1970, and Deadline the same as a
	// CLOCK_BOOTTIME instant, which no one can set; 0 is never.
	Expiry, Deadline int64
	// Static bindings come from the configuration.
	Static bool
}

// String names it by its address, its client and the place.
func (b Binding) String() string { return fmt.Sprintf("%s %s %s", b.IP, b.MAC, b.Place) }

// Never reports whether it has no end.
func (b *Binding) Never() bool { return b.Deadline == 0 }

// Until sets the end: so long after an instant of CLOCK_BOOTTIME. Infinite leases (RFC 2131,
// 3.3) have none.
func (b *Binding) Until(from int64, lease uint32) {
	b.Expiry, b.Deadline = 0, 0
	if lease != 0xffffffff {
		b.Deadline = from + int64(lease)*int64(time.Second)
		b.Expiry = time.Now().UnixNano() + b.Deadline - BootTime()
	}
}

// ExpiresAt sets the end as other programs know it, in nanoseconds since 1970; 0 is never.
func (b *Binding) ExpiresAt(expiry int64) {
	b.Expiry, b.Deadline = expiry, 0
	if expiry != 0 {
		b.Deadline = max(1, BootTime()+expiry-time.Now().UnixNano())
	}
}
