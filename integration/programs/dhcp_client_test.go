//go:build linux

package programs

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// client is the library's DHCP client over any socket; ip is its address, if it
// has one.
func client(t testing.TB, p *lab.Pair, c net.PacketConn, ip net.IP, opts ...nclient4.ClientOpt) *nclient4.Client {
	t.Helper()
	udp := nclient4.NewBroadcastUDPConn(c, &net.UDPAddr{IP: ip, Port: nclient4.ClientPort})
	client, err := nclient4.NewWithConn(udp, p.Ifi[near].HardwareAddr, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// A host's client gets, renews and releases its lease under the policy that the
// project hands out for such hosts; what it forges no server hears.
func TestDHCPServers(t *testing.T) {
	t.Parallel()
	for _, server := range labtest.DHCPServers {
		t.Run(server.Name, func(t *testing.T) {
			t.Parallel()
			p := labtest.NewPair(t, "", "192.0.2.1/24")
			running := server.Start(t, p, far)
			running.Says(t, server.Ready)
			tap := newTap(t, p)
			c := guarded(t, p, afpacket.Datagram, unix.ETH_P_IP, labtest.Example(t, "dhcp-host.yaml"))
			for _, forged := range forgeries {
				mustBlock(t, discover(t, p, c, forged), forged.rule)
			}
			// What was sent before all this would have been heard before it.
			leases(t, p, running, server)
			for _, forged := range forgeries {
				if running.Said(server.Heard(forged.xid)) {
					t.Errorf("%s: the server heard it", forged.name)
				}
			}
			if n := tap.count(t, forgedFrames); n != 0 {
				t.Errorf("%d forged DISCOVERs and answers to them were on the wire", n)
			}
			if t.Failed() {
				return
			}
			for _, forged := range forgeries {
				if err := discover(t, p, bare(t, p, packet.Datagram, unix.ETH_P_IP), forged); errors.Is(err, unix.ENOBUFS) {
					t.Error(err)
				}
				running.Says(t, server.Heard(forged.xid))
			}
			if n := tap.count(t, forgedFrames+" && dhcp.type == 1"); n != len(forgeries) {
				t.Errorf("%d forged DISCOVERs arrived by an unguarded socket, want %d", n, len(forgeries))
			}
		})
	}
}

// leases leads a client through the life of a lease.
func leases(t *testing.T, p *lab.Pair, running *labtest.Program, server labtest.DHCPServer) {
	policy := labtest.Example(t, "dhcp-host.yaml")
	ctx, cancel := context.WithTimeout(t.Context(), labtest.Patience)
	defer cancel()
	starting := client(t, p, guarded(t, p, afpacket.Datagram, unix.ETH_P_IP, policy), nil)
	xid := dhcpv4.TransactionID{0xde, 0xad, 0xbe, 0xef}
	lease, err := starting.Request(ctx, dhcpv4.WithTransactionID(xid))
	if err != nil {
		t.Fatalf("no lease: %v", err)
	}
	ip, ok := netip.AddrFromSlice(lease.ACK.YourIPAddr.To4())
	if !ok || ip.Less(netip.MustParseAddr("192.0.2.100")) || netip.MustParseAddr("192.0.2.149").Less(ip) {
		t.Errorf("the address %v is not from the pool", lease.ACK.YourIPAddr)
	}
	if lease.ACK.MessageType() != dhcpv4.MessageTypeAck || !lease.ACK.ServerIdentifier().Equal(net.IPv4(192, 0, 2, 1)) ||
		lease.ACK.IPAddressLeaseTime(0) != 10*time.Minute {
		t.Errorf("lease %s", lease.ACK.Summary())
	}
	running.Says(t, server.Heard(xid))
	starting.Close()

	// From here on it has an address, to which servers answer by way of ARP.
	labtest.Address(t, p, near, ip.String()+"/24")
	bound := client(t, p, guarded(t, p, afpacket.Datagram, unix.ETH_P_IP, policy), ip.AsSlice(),
		nclient4.WithServerAddr(&net.UDPAddr{IP: lease.ACK.ServerIdentifier(), Port: nclient4.ServerPort}))
	renewed, err := bound.Renew(ctx, lease)
	if err != nil {
		t.Fatalf("not renewed: %v", err)
	}
	if !renewed.ACK.YourIPAddr.Equal(lease.ACK.YourIPAddr) {
		t.Errorf("renewed %v as %v", lease.ACK.YourIPAddr, renewed.ACK.YourIPAddr)
	}
	if running.Said(server.Released) {
		t.Errorf("%q before the release", server.Released)
	}
	if err := bound.Release(renewed); err != nil {
		t.Fatalf("not released: %v", err)
	}
	running.Says(t, server.Released)
}

// forgery is a DISCOVER that a host has no business with.
type forgery struct {
	name, rule string
	xid        dhcpv4.TransactionID
	forge      dhcpv4.Modifier
}

var forgeries = []forgery{
	{"chaddr is not eth.src", "no-foreign-identity", dhcpv4.TransactionID{0xfa, 0xce, 0xba, 0xd1},
		dhcpv4.WithHwAddr(net.HardwareAddr{0x02, 0, 0, 0, 0xba, 0xd1})},
	{"giaddr", "no-relay", dhcpv4.TransactionID{0xfa, 0xce, 0xba, 0xd2},
		dhcpv4.WithGatewayIP(net.IPv4(192, 0, 2, 99))},
	{"option 82", "no-relay", dhcpv4.TransactionID{0xfa, 0xce, 0xba, 0xd3},
		dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte("port 7"))))},
	{"giaddr and option 82", "no-relay", dhcpv4.TransactionID{0xfa, 0xce, 0xba, 0xd4}, func(m *dhcpv4.DHCPv4) {
		dhcpv4.WithRelay(net.IPv4(192, 0, 2, 99))(m)
		m.UpdateOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.LinkSelectionSubOption, []byte{192, 0, 2, 0})))
	}},
}

const forgedFrames = "dhcp.id in {0xfacebad1..0xfacebad4}"

// discover sends one through the library's client and does not wait long for the
// offer, of which most would be for another.
func discover(t *testing.T, p *lab.Pair, c net.PacketConn, forged forgery) error {
	t.Helper()
	dhcp := client(t, p, c, nil, nclient4.WithRetry(1), nclient4.WithTimeout(time.Millisecond))
	_, err := dhcp.DiscoverOffer(t.Context(), dhcpv4.WithTransactionID(forged.xid), forged.forge)
	return err
}
