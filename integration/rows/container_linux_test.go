package rows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// containerHost is a host whose bridge joins containers, which examples/container-host.yaml is for.
type containerHost struct {
	*world
	containers [4]*lab.Pair // from 1 on: veth1 on the host, eth0 in the container
}

var gateway = net.IPv4(172, 17, 0, 1)

// of is the address of a container.
func (h *containerHost) of(i int) net.IP { return net.IPv4(172, 17, 0, byte(1+i)) }

func newContainerHost(t testing.TB) *containerHost {
	h := &containerHost{world: newWorld(t)}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "br0", hardwareAddr(1)
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	must(t, h.Do(0, func() error {
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: gateway, Mask: net.CIDRMask(16, 32)}}); err != nil {
			return err
		}
		return netlink.LinkSetUp(bridge)
	}))
	for i := 1; i < len(h.containers); i++ {
		p := h.join(fmt.Sprintf("veth%d", i), "eth0")
		must(t, p.SetHardwareAddr(1, hardwareAddr(byte(1+i))))
		labtest.Address(t, p, 1, h.of(i).String()+"/16")
		must(t, h.Do(0, func() error {
			link, err := netlink.LinkByIndex(p.Ifi[0].Index)
			if err != nil {
				return err
			}
			return netlink.LinkSetMaster(link, bridge)
		}))
		h.containers[i] = p
	}
	return h
}

// hardwareAddr is what belongs to 172.17.0.x.
func hardwareAddr(x byte) net.HardwareAddr { return net.HardwareAddr{2, 0x42, 0xac, 0x11, 0, x} }

// ping says whether a container reaches an address, and waits that long for it.
func (h *containerHost) ping(i int, to net.IP, within time.Duration) (answered bool) {
	h.t.Helper()
	must(h.t, h.containers[i].Do(1, func() error {
		c, err := icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		if err != nil {
			return err
		}
		defer c.Close()
		echo := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: i}}
		b, err := echo.Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(b, &net.IPAddr{IP: to}); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		for b = make([]byte, 1500); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return nil // in time, none came
			}
			m, err := icmp.ParseMessage(1, b[:n])
			if answered = err == nil && m.Type == ipv4.ICMPTypeEchoReply && from.String() == to.String(); answered {
				return nil
			}
		}
	}))
	return answered
}

// TestContainerHost: containers reach each other and the host; one that nobody has told the guard of
// reaches none.
func TestContainerHost(t *testing.T) {
	h := newContainerHost(t)
	if !h.ping(3, h.of(1), labtest.Patience) {
		t.Fatal("without a guard, the third container does not reach the first")
	}
	h.guard(example(t, "container-host.yaml"))
	for _, c := range []struct {
		from int
		to   net.IP
	}{{1, h.of(2)}, {2, h.of(1)}, {1, gateway}, {2, gateway}} {
		if !h.ping(c.from, c.to, labtest.Patience) {
			t.Errorf("container %d does not reach %v", c.from, c.to)
		}
	}
	if h.ping(3, h.of(1), time.Second) || h.ping(3, gateway, time.Second) {
		t.Error("the third container reaches others before it was told of")
	}
	must(t, h.AddToSet("macs", 0, []string{"veth3", hardwareAddr(4).String()}))
	must(t, h.AddToSet("addresses", 0, []string{"veth3", h.of(3).String()}))
	if !h.ping(3, h.of(1), labtest.Patience) || !h.ping(3, gateway, labtest.Patience) {
		t.Error("the third container does not reach others though it was told of")
	}
}

// TestSpoofingContainer: the frames of the policy's own tests, sent from the first container in every
// way, to all. Those that it refuses do not come to the second one, the others do, once.
func TestSpoofingContainer(t *testing.T) {
	h := newContainerHost(t)
	text := example(t, "container-host.yaml")
	policy, _, err := firewall.Parse("container-host.yaml", []byte(text))
	must(t, err)
	var frames [][]byte
	names, honest := map[string]string{}, map[string]int{}
	all := map[string]int{}
	for _, c := range policy.Tests {
		if c.Iface != "veth1" {
			continue
		}
		f := append(slices.Repeat([]byte{0xff}, 6), c.Frame[6:]...)
		frames = append(frames, f)
		key := behindBridge(f)
		names[key] = c.Name
		all[key]++
		if c.Expect == firewall.Accept {
			honest[key]++
		}
	}
	r := receive(t, h.containers[2])
	for _, way := range ways {
		for _, guarded := range []bool{false, true} {
			must(t, h.Flush()) // what was taken from a limit is given back
			want := all
			if guarded {
				h.guard(text)
				want = honest
			}
			way.by(t, h.containers[1], 1, frames...)
			arrivals, got := map[string]int{}, map[string]int{}
			must(t, r.Drain(arrivals))
			for f, n := range arrivals {
				got[behindBridge([]byte(f))] += n
			}
			for key, name := range names {
				if got[key] != want[key] {
					t.Errorf("%s, guarded %t, %s: arrives %d times, want %d", way.name, guarded, name, got[key], want[key])
				}
			}
		}
	}
	t.Logf("%d frames in %d ways: %d of them honest", len(frames), len(ways), len(honest))
}

// behindBridge is what can be told of a frame behind a bridge, which cuts the padding of IPv4
// packets off; and its tag is beside it, where the receiver does not look.
func behindBridge(f []byte) string {
	if f[12] == 0x81 {
		f = append(f[:12:12], f[16:]...)
	}
	return string(bytes.TrimRight(f, "\x00"))
}

// TestRogueServer: a container that is a DHCP server for the others is heard without the guard. With
// it, a client in another container gets its address from the host's.
func TestRogueServer(t *testing.T) {
	h := newContainerHost(t)
	client := h.containers[1]
	noAddress := func() {
		must(t, client.Do(1, func() error {
			link, err := netlink.LinkByIndex(client.Ifi[1].Index)
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
			for _, a := range addrs {
				err = errors.Join(err, netlink.AddrDel(link, &a))
			}
			return err
		}))
	}
	ask := func() *labtest.Program {
		noAddress()
		return labtest.DHCPClients[0].Start(t, client, 1, int(labtest.Patience.Seconds()), nil)
	}
	serve(t, h.containers[2], 1, "eth0", "172.17.0.66").Says(t, "sockets bound exclusively")
	ask().Says(t, "configured 172.17.0.66")
	h.guard(example(t, "container-host.yaml"))
	serve(t, h.Pair, 0, "br0", h.of(1).String()).Says(t, "sockets bound exclusively")
	ask().Says(t, "configured "+h.of(1).String())
	if n := h.matched()["no-dhcp-server"]; n == 0 {
		t.Error("the rogue server has not answered at all")
	}
}

// serve runs a DHCP server that has one address to give.
func serve(t testing.TB, p *lab.Pair, i int, device, address string) *labtest.Program {
	t.Helper()
	return labtest.Start(t, p, i, nil, labtest.Tool(t, "dnsmasq", "dnsmasq-base"), "--keep-in-foreground", "--conf-file=/dev/null",
		"--log-facility=-", "--user=root", "--pid-file=", "--port=0", "--no-ping", "--dhcp-authoritative",
		"--interface="+device, "--except-interface=lo", "--bind-interfaces",
		"--dhcp-leasefile="+t.TempDir()+"/leases", "--dhcp-range="+address+","+address+",10m")
}

// TestContainersSuperFrame: one UDP header before many datagrams, of which only the first would be
// looked at, is refused where datagrams are looked into, and passes elsewhere.
func TestContainersSuperFrame(t *testing.T) {
	h := newContainerHost(t)
	text := example(t, "container-host.yaml")
	policy, _, err := firewall.Parse("container-host.yaml", []byte(text))
	must(t, err)
	discover := policy.Tests[slices.IndexFunc(policy.Tests, func(c firewall.Test) bool { return c.Rule == "own-dhcp" })].Frame
	other := udpFrame(discover[:6], hardwareAddr(2), h.of(1), h.of(2), 0)
	r := receive(t, h.containers[2])
	arrive := func(frame []byte) (n int) {
		t.Helper()
		must(t, h.containers[1].Do(1, func() error { return sendTwice(h.containers[1].Ifi[1], frame) }))
		frames := map[string]int{}
		must(t, r.Drain(frames))
		for f, times := range frames {
			if len(f) > 42 && f[12:14] == "\x08\x00" && f[34:38] == string(frame[34:38]) { // the ports
				n += times
			}
		}
		return n
	}
	if a, b := arrive(discover), arrive(other); a != 2 || b != 2 {
		t.Fatalf("without a guard %d and %d datagrams arrive, want 2 and 2", a, b)
	}
	h.guard(text)
	if n := arrive(other); n != 2 {
		t.Errorf("%d datagrams that are not looked into arrive, want 2", n)
	}
	if n := arrive(discover); n != 0 || h.matched()["malformed"] != 1 {
		t.Errorf("%d DISCOVERs arrive, %d frames are malformed", n, h.matched()["malformed"])
	}
	ways[0].by(t, h.containers[1], 1, discover)
	if n := h.matched()["own-dhcp"]; n != 1 {
		t.Errorf("of the DISCOVER by itself %d pass", n)
	}
}

// sendTwice sends what a UDP datagram holds twice in one frame, for the kernel to divide
// (PACKET_VNET_HDR, virtio_net.h).
func sendTwice(ifi *net.Interface, frame []byte) error {
	const vnetHdr, needsChecksum, udpL4 = 15, 1, 5
	put, size := binary.BigEndian.PutUint16, int(binary.BigEndian.Uint16(frame[38:]))-8
	f := append(slices.Clone(frame[:42]), slices.Repeat(frame[42:42+size], 2)...)
	put(f[16:], uint16(20+8+2*size))
	put(f[24:], 0)
	put(f[24:], checksum(f[14:34]))
	put(f[38:], uint16(8+2*size))
	header := []byte{needsChecksum, udpL4}
	for _, v := range []int{42, size, 34, 6} { // hdr_len, gso_size, csum_start, csum_offset
		header = binary.NativeEndian.AppendUint16(header, uint16(v))
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, vnetHdr, 1); err != nil {
		return err
	}
	return unix.Sendto(fd, append(header, f...), 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: 8}) // IPv4
}
