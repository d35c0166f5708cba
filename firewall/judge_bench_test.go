package firewall

import (
	"encoding/hex"
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/firewall/filter"
)

// dhcpDiscover is a DISCOVER as dhclient sends it, in an Ethernet frame.
func dhcpDiscover() []byte {
	own := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	m, err := dhcpv4.NewDiscovery(own, dhcpv4.WithOption(dhcpv4.OptHostName("bench")),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("postern bench")),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, own...))),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(1472)),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainName, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionNTPServers, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute),
		dhcpv4.WithGeneric(dhcpv4.OptionRequestedIPAddress, []byte{192, 0, 2, 10}),
		dhcpv4.WithLeaseTime(3600))
	if err != nil {
		panic(err)
	}
	payload := m.ToBytes()
	head, _ := hex.DecodeString("ffffffffffff0200000000010800" + "451000000000000040110000" + "00000000ffffffff" + "0044004300000000")
	n := len(payload)
	head[16], head[17] = byte((n+28)>>8), byte(n+28)
	head[38], head[39] = byte((n+8)>>8), byte(n+8)
	return append(head, payload...)
}

// BenchmarkJudge is one frame by one rule, as integration/bench has it.
func BenchmarkJudge(b *testing.B) {
	arp, _ := hex.DecodeString("ffffffffffff020000000001080600010800060400010200000000010a0000000000000000000a000000000000000000000000000000000000000000000000")
	dhcpFrame, meta := dhcpDiscover(), &filter.Meta{Iface: "eth0"}
	for _, x := range []struct {
		name, policy string
		frame        []byte
	}{
		{"arp", "policy: p\nrules:\n  - {name: own, match: arp.opcode == 1 && arp.src.proto_ipv4 == 10.0.0.0 && arp.src.hw_mac == eth.src, verdict: accept}\n", arp},
		{"limited", "policy: p\nrules:\n  - {name: own, match: arp.opcode == 1 && arp.src.proto_ipv4 == 10.0.0.0 && arp.src.hw_mac == eth.src, limit: {rate: 1000000000/s, burst: 1000000, per: arp.src.proto_ipv4}, verdict: accept}\n", arp},
		{"dhcp", "policy: p\nrules:\n  - {name: own, match: dhcp.option.dhcp == 1 && dhcp.hw.mac_addr == eth.src, verdict: accept}\n", dhcpFrame},
	} {
		p, _, err := Parse("x", []byte(x.policy))
		if err != nil {
			b.Fatal(err)
		}
		fw, _ := New(p)
		b.Run(x.name+"/decode", func(b *testing.B) {
			var pkt filter.Packet
			for b.Loop() {
				pkt.Decode(x.frame, meta)
			}
		})
		b.Run(x.name+"/classify", func(b *testing.B) {
			var pkt filter.Packet
			pkt.Decode(x.frame, meta)
			for b.Loop() {
				if fw.Classify(&pkt).Verdict != Accept {
					b.Fatal("no")
				}
			}
		})
		b.Run(x.name+"/both", func(b *testing.B) {
			var pkt filter.Packet
			for b.Loop() {
				pkt.Decode(x.frame, meta)
				if fw.Classify(&pkt).Verdict != Accept {
					b.Fatal("no")
				}
			}
		})
	}
}
