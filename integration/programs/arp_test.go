//go:build linux

package programs

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

const arpPolicy = `
policy: arp-client
guard:
  - interfaces: [near]
rules:
  - name: no-replies
    match: arp.opcode == 2
    verdict: drop
  - name: no-foreign-hardware
    match: arp && (arp.src.hw_mac != eth.src || eth.src != iface.mac)
    verdict: drop
  - name: requests
    match: arp.opcode == 1
    verdict: accept
`

var (
	nearIP = netip.MustParseAddr("192.0.2.5")
	farIP  = netip.MustParseAddr("192.0.2.1")
	// victim belongs to nobody: who claims it gets it.
	victim    = netip.MustParseAddr("192.0.2.77")
	stranger  = net.HardwareAddr{0x02, 0, 0, 0, 0xba, 0xd0}
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// arpClient is the library's client as it is on ifi, over any socket.
func arpClient(t testing.TB, p *lab.Pair, ifi *net.Interface, c net.PacketConn) (client *arp.Client) {
	t.Helper()
	labtest.In(t, p, near, func() (err error) { client, err = arp.New(ifi, c); return err })
	if err := client.SetDeadline(time.Now().Add(labtest.Patience)); err != nil {
		t.Fatal(err)
	}
	return client
}

// The kernel at the far side answers a request that the policy lets out.
func TestARPResolve(t *testing.T) {
	t.Parallel()
	p := labtest.NewPair(t, "192.0.2.5/24", "192.0.2.1/24")
	client := arpClient(t, p, p.Ifi[near], guarded(t, p, afpacket.Raw, unix.ETH_P_ARP, arpPolicy))
	mac, err := client.Resolve(farIP)
	if err != nil || !slices.Equal(mac, p.Ifi[far].HardwareAddr) {
		t.Errorf("resolved %v, %v, want %v", mac, err, p.Ifi[far].HardwareAddr)
	}
	if mac := labtest.Cached(t, p, far, nearIP); !slices.Equal(mac, p.Ifi[near].HardwareAddr) {
		t.Errorf("the far kernel learned %v for %v from the request", mac, nearIP)
	}
}

func TestARPRefused(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, rule string
		arrives    string // the forged frame, at the far side
		send       func(t *testing.T, p *lab.Pair, c net.PacketConn) error
	}{
		{"reply", "no-replies", "arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.77", sendReply},
		{"client of another hardware address", "no-foreign-hardware",
			"arp.src.hw_mac == 02:00:00:00:ba:d0 && eth.src == 02:00:00:00:ba:d0", sendAsStranger},
		{"sender is not eth.src", "no-foreign-hardware",
			"arp.src.hw_mac == 02:00:00:00:ba:d0 && eth.src != 02:00:00:00:ba:d0", sendTwoFaced},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := labtest.NewPair(t, "192.0.2.5/24", "192.0.2.1/24")
			labtest.AskFor(t, p, victim)
			tap := newTap(t, p)
			c := guarded(t, p, afpacket.Raw, unix.ETH_P_ARP, arpPolicy)
			mustBlock(t, test.send(t, p, c), test.rule)
			// What was sent before the answer to this would have arrived before it.
			if _, err := arpClient(t, p, p.Ifi[near], c).Resolve(farIP); err != nil {
				t.Errorf("an honest request after the refusal: %v", err)
			}
			if n := tap.count(t, test.arrives); n != 0 {
				t.Errorf("%d forged frames arrived", n)
			}
			if mac := labtest.Cached(t, p, far, victim); mac != nil {
				t.Errorf("the far kernel believes that %v is at %v", victim, mac)
			}

			if err := test.send(t, p, bare(t, p, packet.Raw, unix.ETH_P_ARP)); err != nil {
				t.Fatal(err)
			}
			if n := tap.count(t, test.arrives); n != 1 {
				t.Errorf("%d forged frames arrived by an unguarded socket, want 1", n)
			}
			if labtest.Cached(t, p, far, victim) == nil {
				t.Errorf("the forged frame of an unguarded socket did no harm")
			}
		})
	}
}

// sendReply claims the victim's address.
func sendReply(t *testing.T, p *lab.Pair, c net.PacketConn) error {
	request := &arp.Packet{SenderHardwareAddr: p.Ifi[far].HardwareAddr, SenderIP: farIP}
	return arpClient(t, p, p.Ifi[near], c).Reply(request, p.Ifi[near].HardwareAddr, victim)
}

// sendAsStranger asks as a client does that takes its interface for another.
func sendAsStranger(t *testing.T, p *lab.Pair, c net.PacketConn) error {
	ifi := *p.Ifi[near]
	ifi.HardwareAddr = stranger
	client := arpClient(t, p, &ifi, c)
	return client.WriteTo(claim(t), broadcast)
}

// sendTwoFaced sends the same packet in a frame that comes from this interface,
// which the library cannot.
func sendTwoFaced(t *testing.T, p *lab.Pair, c net.PacketConn) error {
	b, err := claim(t).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	frame := slices.Concat(broadcast, p.Ifi[near].HardwareAddr, []byte{0x08, 0x06}, b)
	_, err = c.WriteTo(frame, &packet.Addr{HardwareAddr: broadcast})
	return err
}

// claim asks for the far kernel's address in the victim's name, which that
// believes as it does a reply (arp_process).
func claim(t *testing.T) *arp.Packet {
	t.Helper()
	packet, err := arp.NewPacket(arp.OperationRequest, stranger, victim, broadcast, farIP)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// iputils' arping finds a virtual address that the node owns, and no other,
// though the agent on the node answers for every address asked.
func TestArping(t *testing.T) {
	t.Parallel()
	arping := labtest.Tool(t, "arping", "iputils-arping")
	p := labtest.NewPair(t, "192.0.2.5/24", "192.0.2.1/24")
	if version := labtest.Start(t, p, far, nil, arping, "-V"); version.Ends(t) != 0 || !version.Said("iputils") {
		labtest.Cannot(t, "needs iputils' tool arping, not another of that name: apt-get install iputils-arping")
	}
	client := arpClient(t, p, p.Ifi[near], guarded(t, p, afpacket.Raw, unix.ETH_P_ARP, labtest.Example(t, "node-agent.yaml")))
	answers := proxyARP(client, farIP)

	owned := labtest.Start(t, p, far, nil, arping, "-c", "1", "-w", "5", "-I", "far", "192.0.2.10")
	mac := strings.ToUpper(p.Ifi[near].HardwareAddr.String())
	if code := owned.Ends(t); code != 0 || !owned.Said("reply from 192.0.2.10 ["+mac+"]") {
		t.Errorf("arping for an address of the node's: exit %d\n%s", code, owned.Output())
	}
	if err := next(t, answers); err != nil {
		t.Errorf("answer for an address of the node's: %v", err)
	}

	foreign := labtest.Start(t, p, far, nil, arping, "-c", "1", "-w", "1", "-I", "far", "192.0.2.77")
	mustBlock(t, next(t, answers), "no-foreign-arp")
	if code := foreign.Ends(t); code != 1 || !foreign.Said("Received 0 response(s)") {
		t.Errorf("arping for another's address: exit %d\n%s", code, foreign.Output())
	}

	// An agent without a guard steals it.
	go answer(arpClient(t, p, p.Ifi[near], bare(t, p, packet.Raw, unix.ETH_P_ARP)), farIP)
	stolen := labtest.Start(t, p, far, nil, arping, "-c", "1", "-w", "5", "-I", "far", "192.0.2.77")
	if code := stolen.Ends(t); code != 0 || !stolen.Said("["+mac+"]") {
		t.Errorf("arping for another's address, answered by an unguarded socket: exit %d\n%s", code, stolen.Output())
	}
}

// proxyARP answers every request of one host in the client's name until the
// client is closed, and tells how each answer went.
func proxyARP(client *arp.Client, host netip.Addr) <-chan error {
	answers := make(chan error, 100)
	go func() {
		for {
			err := answer(client, host)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			answers <- err
		}
	}()
	return answers
}

// answer answers the next request of one host.
func answer(client *arp.Client, host netip.Addr) error {
	for {
		request, _, err := client.Read()
		if err != nil {
			return err
		}
		if request.Operation == arp.OperationRequest && request.SenderIP == host && request.TargetIP != nearIP {
			return client.Reply(request, client.HardwareAddr(), request.TargetIP)
		}
	}
}
