package main

import (
	"encoding/binary"
	"net"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// discover is a DISCOVER as dhclient sends it, with a dozen options.
func discover() *dhcpv4.DHCPv4 {
	m, err := dhcpv4.NewDiscovery(net.HardwareAddr(ownMAC),
		dhcpv4.WithOption(dhcpv4.OptHostName("bench")),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("postern bench")),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, ownMAC...))),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1472)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainName, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionNTPServers, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute),
		dhcpv4.WithGeneric(dhcpv4.OptionRequestedIPAddress, []byte{192, 0, 2, 10}),
		dhcpv4.WithLeaseTime(3600))
	if err != nil {
		panic(err) // there is no randomness
	}
	return m
}

// fixed is the fixed part of a DISCOVER and the cookie.
func fixed() []byte { return discover().ToBytes()[:240] }

// placed are DISCOVERs whose message type stands at different places.
func placed() map[string][]byte {
	typ, end := []byte{53, 1, 1}, []byte{255}
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	var others []byte
	for code := range byte(20) {
		others = append(others, 128+code, 4, 1, 2, 3, 4)
	}
	inName := join(fixed(), []byte{52, 1, 2}, end)
	copy(inName[44:108], join(typ, end))
	return map[string][]byte{
		"first, no other":             join(fixed(), typ, end),
		"first, before 20 others":     join(fixed(), typ, others, end),
		"last, behind 20 others":      join(fixed(), others, typ, end),
		"last, behind 1,000 of pad":   join(fixed(), make([]byte, 1000), typ, end),
		"in sname, by overload":       inName,
		"option 82 with 3 suboptions": join(fixed(), typ, []byte{82, 15, 1, 4, 'e', 't', 'h', '0', 2, 3, 'a', 'b', 'c', 5, 2, 1, 2}, end),
	}
}

// broadcast is a client's UDP datagram to port 67, in an Ethernet frame.
func broadcast(payload []byte) []byte {
	b := make([]byte, 14+20+8, 14+20+8+len(payload))
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], ownMAC)
	copy(b[12:], "\x08\x00\x45\x10")
	ip := b[14:]
	binary.BigEndian.PutUint16(ip[2:], uint16(20+8+len(payload)))
	ip[8], ip[9] = 64, 17
	copy(ip[16:], "\xff\xff\xff\xff")
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	binary.BigEndian.PutUint16(b[34:], 68)
	binary.BigEndian.PutUint16(b[36:], 67)
	binary.BigEndian.PutUint16(b[38:], uint16(8+len(payload)))
	return append(b, payload...)
}
