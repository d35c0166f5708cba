package hostile

import (
	"encoding/hex"
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

var stranger = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x99}

// offer is an OFFER's bytes, for tools that send what they are given.
func offer(t testing.TB) string {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithHwAddr(stranger), dhcpv4.WithYourIP(net.IPv4(192, 0, 2, 100)))
	must(t, err)
	m.OpCode = dhcpv4.OpcodeBootReply
	return hex.EncodeToString(m.ToBytes())
}

// TestDHCPHost: what tools and clients forge on a host that is a DHCP client and
// nothing else. What comes by ordinary sockets is refused where all senders are guarded.
func TestDHCPHost(t *testing.T) {
	t.Parallel()
	packetSockets, all := example(t, "dhcp-host.yaml", `["eth*", "en*"]`, "packet-sockets"), testdata(t, "dhcp-host.yaml")
	forge := func(how ...string) func(testing.TB, *lab.Pair) *labtest.Program {
		return nping(append(how, "--udp", "--source-port", "67", "--dest-port", "68", "--data", offer(t), "192.0.2.1")...)
	}
	uses := []use{
		{
			name: "yersinia exhausts the pool", policy: packetSockets, endless: true, flood: true,
			run:    command("yersinia", "yersinia", "-l", "/dev/null", "dhcp", "-interface", "near", "-attack", "1"),
			forged: []forgery{{"dhcp.option.dhcp == 1", "own-hardware-address"}},
		},
		{
			name: "yersinia forges an answer", policy: packetSockets,
			run:    yersinia("-opcode", "2", "-sport", "67", "-dport", "68", "-yi", "192.0.2.100", "-si", "192.0.2.5"),
			forged: []forgery{{"udp.srcport == 67 && dhcp.type == 2", "no-rogue-server"}},
		},
		{
			name: "yersinia asks in its own name", policy: packetSockets,
			run:    yersinia(),
			honest: []string{"dhcp.option.dhcp == 1"},
		},
		{
			name: "nping forges an OFFER by a packet socket", policy: packetSockets,
			run:    forge("--send-eth", "--dest-mac", "ff:ff:ff:ff:ff:ff"),
			forged: []forgery{{"udp.srcport == 67 && dhcp.option.dhcp == 2", "no-rogue-server"}},
		},
		{
			name: "nping forges an OFFER by a raw IP socket", policy: all,
			run:    forge("--send-ip"),
			forged: []forgery{{"udp.srcport == 67 && dhcp.option.dhcp == 2", "no-rogue-server"}},
		},
		{
			name: "nping asks a name server by a raw IP socket", policy: all,
			run:    nping("--udp", "--dest-port", "53", "--send-ip", "192.0.2.1"),
			honest: []string{"udp.dstport == 53"},
		},
		{
			name: "dhclient releases another's lease by a UDP socket", policy: all, run: releaseOf(stranger, "192.0.2.100"),
			forged: []forgery{{"dhcp.option.dhcp == 7 && dhcp.hw.mac_addr == 02:00:00:00:00:99", "no-foreign-identity"}},
		},
		{
			name: "scapy", policy: packetSockets, run: scapy("dhcp.py", "near"),
			forged: []forgery{
				{"dhcp.id == 1 && dhcp.option.dhcp == 2", "no-rogue-server"},
				{"dhcp.id == 2 && dhcp.option.dhcp == 5", "no-rogue-server"},
				{"dhcp.id == 3 && dhcp.option.dhcp == 6", "no-rogue-server"},
				{"dhcp.id == 4 && dhcp.option.option_overload == 1 && dhcp.option.dhcp == 2", "no-rogue-server"},
				{"dhcp.id == 5 && dhcp.malformed", "malformed"},
				{"dhcp.id == 6 && dhcp.option.dhcp == 7", "no-foreign-identity"},
				{"dhcp.id == 7 && dhcp.option.dhcp == 7", "no-foreign-identity"},
				{"dhcp.id == 8 && dhcp.option.dhcp == 4", "own-hardware-address"},
				{"dhcp.id == 9 && dhcp.option.type == 82", "no-relay"},
				{"dhcp.id == 10 && dhcp.option.dhcp == 1", "no-foreign-identity"},
				{"dhcp.id == 11 && dhcp.option.dhcp == 1", "own-hardware-address"},
			},
			honest: []string{"dhcp.id == 12 && dhcp.option.dhcp == 1", "dhcp.id == 13 && dhcp.option.dhcp == 3"},
		},
	}
	for _, client := range labtest.DHCPClients {
		uses = append(uses, use{
			name: client.Name + " under another's client identifier", policy: packetSockets, endless: true,
			run: func(t testing.TB, p *lab.Pair) *labtest.Program {
				t.Helper()
				return client.Start(t, p, labtest.Near, int(labtest.Patience.Seconds()), stranger)
			},
			forged: []forgery{{"dhcp.option.dhcp in {1, 3} && dhcp.hw.mac_addr == 02:00:00:00:00:99", "no-foreign-identity"}},
		})
	}
	for _, u := range uses {
		t.Run(u.name, u.try)
	}
}

// TestDHCPServerHost: what is forged on a machine that is a DHCP server.
func TestDHCPServerHost(t *testing.T) {
	use{
		name: "scapy answers in another server's name", policy: testdata(t, "dhcp-server.yaml"), run: scapy("dhcp.py", "near"),
		forged: []forgery{
			{"dhcp.id == 1 && dhcp.option.dhcp == 2", "default"},
			{"dhcp.id == 2 && dhcp.option.dhcp == 5", "default"},
			{"dhcp.id == 3 && dhcp.option.dhcp == 6", "default"},
			{"dhcp.id == 4 && dhcp.option.dhcp == 2", "default"},
		},
	}.try(t)
}

// releaseOf runs dhclient on a lease of another's, to give that up.
func releaseOf(id net.HardwareAddr, ip string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		dir := t.TempDir()
		config := labtest.Write(t, dir, "dhclient.conf", 0o600, "send dhcp-client-identifier 1:"+id.String()+";\n")
		leases := labtest.Write(t, dir, "leases", 0o600, `lease {
  interface "near";
  fixed-address `+ip+`;
  option dhcp-server-identifier 192.0.2.1;
  option dhcp-lease-time 600;
  renew never; rebind never; expire never;
}
`)
		return labtest.Start(t, p, labtest.Near, nil, labtest.Tool(t, "dhclient", "isc-dhcp-client"),
			"-4", "-d", "-r", "-v", "--no-pid", "-cf", config, "-lf", leases, "-sf", "/bin/true", "near")
	}
}

// yersinia sends one message, from the near end's own hardware address.
func yersinia(args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		own := p.Ifi[labtest.Near].HardwareAddr.String()
		args := append([]string{"-l", "/dev/null", "dhcp", "-interface", "near", "-attack", "0", "-source", own, "-ch", own}, args...)
		return labtest.Start(t, p, labtest.Near, nil, labtest.Tool(t, "yersinia", "yersinia"), args...)
	}
}

// nping sends twice.
func nping(args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
	return command("nping", "nmap", append([]string{"-e", "near", "-c", "2", "--rate", "100"}, args...)...)
}
