//go:build linux

package programs

import (
	"net"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// serverPolicy is for a server: it answers in its own name and does nothing else.
const serverPolicy = `
policy: dhcp-server
guard:
  - interfaces: [near]
rules:
  - name: own-answers
    match: udp.srcport == 67 && udp.dstport == 68 && dhcp.type == 2 && dhcp.option.dhcp in {2, 5, 6} &&
      dhcp.option.dhcp_server_id == 192.0.2.1 && eth.src == iface.mac
    verdict: accept
`

var (
	serverIP = net.IPv4(192, 0, 2, 1)
	leasedIP = net.IPv4(192, 0, 2, 77)
)

// serve runs the library's server over any socket and tells how each answer went.
func serve(t testing.TB, c net.PacketConn) <-chan error {
	t.Helper()
	answers := make(chan error, 100)
	handler := func(c net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
		answer := dhcpv4.MessageTypeOffer
		if m.MessageType() == dhcpv4.MessageTypeRequest {
			answer = dhcpv4.MessageTypeAck
		}
		reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(answer), dhcpv4.WithYourIP(leasedIP),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(serverIP)),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithLeaseTime(600))
		if err == nil {
			_, err = c.WriteTo(reply.ToBytes(), peer)
		}
		answers <- err
	}
	server, err := server4.NewServer("", nil, handler,
		server4.WithConn(nclient4.NewBroadcastUDPConn(c, &net.UDPAddr{Port: nclient4.ServerPort})))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve() // until it is closed
	}()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return answers
}

// A server whose policy lets it answer is understood by the clients.
func TestDHCPClients(t *testing.T) {
	t.Parallel()
	for _, client := range labtest.DHCPClients {
		t.Run(client.Name, func(t *testing.T) {
			t.Parallel()
			p := labtest.NewPair(t, "", "")
			answers := serve(t, guarded(t, p, afpacket.Datagram, unix.ETH_P_IP, serverPolicy))
			getsLease(t, p, client)
			for range 2 { // OFFER and ACK
				if err := next(t, answers); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The same server on a machine that has no business to serve is heard by nobody.
func TestDHCPRogueServer(t *testing.T) {
	t.Parallel()
	for _, client := range labtest.DHCPClients {
		t.Run(client.Name, func(t *testing.T) {
			t.Parallel()
			p := labtest.NewPair(t, "", "")
			tap := newTap(t, p)
			c := guarded(t, p, afpacket.Datagram, unix.ETH_P_IP, labtest.Example(t, "dhcp-host.yaml"))
			answers := serve(t, c)
			running := client.Start(t, p, far, 2, nil)
			mustBlock(t, next(t, answers), "no-rogue-server")
			if code := running.Ends(t); code != client.GaveUp {
				t.Errorf("exit %d, want %d", code, client.GaveUp)
			}
			if running.Said("configured") || leased(t, p) {
				t.Errorf("it has a lease from a rogue server")
			}
			for len(answers) > 0 {
				mustBlock(t, next(t, answers), "no-rogue-server")
			}
			if n := tap.count(t, "udp.srcport == 67"); n != 0 {
				t.Errorf("%d answers arrived", n)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}

			serve(t, bare(t, p, packet.Datagram, unix.ETH_P_IP))
			getsLease(t, p, client)
		})
	}
}

// getsLease runs the client and sees that it configures what the server gives.
func getsLease(t *testing.T, p *lab.Pair, client labtest.DHCPClient) {
	t.Helper()
	running := client.Start(t, p, far, int(labtest.Patience.Seconds()), nil)
	running.Says(t, "configured "+leasedIP.String())
	if !leased(t, p) {
		t.Errorf("%s has a lease and the interface no address", client.Name)
	}
}

// leased says whether the far end has the server's address.
func leased(t testing.TB, p *lab.Pair) (yes bool) {
	t.Helper()
	labtest.In(t, p, far, func() error {
		link, err := netlink.LinkByName(p.Ifi[far].Name)
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
		for _, a := range addrs {
			ones, _ := a.Mask.Size()
			yes = yes || a.IP.Equal(leasedIP) && ones == 24
		}
		return err
	})
	return yes
}
