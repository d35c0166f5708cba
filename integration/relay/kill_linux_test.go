package relay

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/relay/wire"
)

// crowd is many clients at one end, each with a hardware address of its own, that ask for
// addresses as fast as they are told, and note which they have been given.
type crowd struct {
	t    testing.TB
	conn *packet.Conn
	mu   sync.Mutex
	next uint32
	held map[string]bool // addresses
}

func newCrowd(t testing.TB, p *lab.Pair) *crowd {
	t.Helper()
	c := &crowd{t: t, held: map[string]bool{}}
	labtest.In(t, p, clientEnd, func() (err error) {
		c.conn, err = packet.Listen(p.Ifi[clientEnd], packet.Raw, unix.ETH_P_IP, nil)
		return err
	})
	t.Cleanup(func() { c.conn.Close() })
	must(t, c.conn.SetPromiscuous(true))
	go c.listen()
	return c
}

// listen ends when the socket is closed.
func (c *crowd) listen() {
	b := make([]byte, 2048)
	var d wire.Datagram
	var m dhcp.Message
	for {
		n, _, err := c.conn.ReadFrom(b)
		if err != nil {
			return
		}
		if d.Decode(b[:n], true) != "" || d.DstPort != 68 {
			continue
		}
		if m.Decode(d.Payload); m.Type == 5 {
			ip := binary.BigEndian.AppendUint32(nil, m.YIAddr())
			c.mu.Lock()
			c.held[net.IP(ip).String()] = true
			c.mu.Unlock()
		}
	}
}

// ask sends a REQUEST of the next client.
func (c *crowd) ask() {
	c.next++
	mac := net.HardwareAddr{2, 0, 0, 0, byte(c.next >> 8), byte(c.next)}
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(mac), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest))
	must(c.t, err)
	d := wire.Datagram{EthDst: [6]byte{255, 255, 255, 255, 255, 255}, EthSrc: [6]byte(mac), Dst: 0xffffffff, SrcPort: 68, DstPort: 67, Payload: m.ToBytes()}
	c.send(d)
}

func (c *crowd) send(d wire.Datagram) {
	_, err := c.conn.WriteTo(d.Append(nil, 0, false), &packet.Addr{HardwareAddr: d.EthDst[:]})
	must(c.t, err)
}

// given are the addresses that clients know to be theirs.
func (c *crowd) given() (list []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ip := range c.held {
		list = append(list, ip)
	}
	return list
}

// unlimited takes the pace of the example's port away, which is not what is tested.
var unlimited = []string{`["veth*"]`, `["seg*"]`, "{rate: 30/m, burst: 20, per: iface.name}", "{rate: 1000000/s, burst: 1000000, per: iface.name}"}

// TestKill: kill -9 during load. Every binding whose ACK has reached its client is there after it,
// in the database and in the firewall, and who has an address is not cut off for one frame.
func TestKill(t *testing.T) {
	kills := 100
	if testing.Short() {
		kills = 10
	}
	s := newSite(t, 1)
	s.guard("relay-guard.yaml", unlimited...)
	stub(t, s.up)
	config := s.config(allSegments, "set: bindings\nbpffs: "+s.host.Root)
	c := newCrowd(t, s.segments[0])
	g := s.relay(config, "--quiet")
	c.ask() // the first client is the one whose traffic is watched
	s.eventually("the first client has its address", func() bool { return len(c.given()) == 1 && s.has(c.given()[0]) })
	ip := binary.BigEndian.Uint32(net.ParseIP(c.given()[0]).To4())
	traffic := wire.Datagram{EthDst: [6]byte(s.segments[0].Ifi[agentEnd].HardwareAddr), EthSrc: [6]byte{2, 0, 0, 0, 0, 1}, Src: ip, Dst: 0x0a010001,
		SrcPort: 9, DstPort: 9, Payload: []byte("are you there")}
	sent := uint64(0)
	for range kills {
		for end := time.Now().Add(time.Duration(20+rand.IntN(80)) * time.Millisecond); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
			for range 4 {
				c.ask()
			}
			c.send(traffic)
			sent++
		}
		g.Kill()
		c.send(traffic)
		sent++
		given := c.given()
		s.missing("in the firewall", s.inForce(), given)
		g = s.relay(config, "--quiet")
		there := map[string]bool{}
		for ip := range s.bindings() {
			there[ip] = true
		}
		s.missing("in the database", there, given)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, %d bindings, %d frames of a client", kills, len(c.given()), sent)
	if len(c.given()) < 3*kills {
		t.Errorf("only %d bindings: that was no load", len(c.given()))
	}
	if passed, refused := s.decided("own-address"), s.decided("no-foreign-address"); passed != sent || refused != 0 {
		t.Errorf("%d frames were sent, %d passed, %d were refused", sent, passed, refused)
	}
}

// missing complains of addresses that are not there.
func (s *site) missing(where string, there map[string]bool, given []string) {
	s.t.Helper()
	n := 0
	for _, ip := range given {
		if !there[ip] {
			n++
		}
	}
	if n > 0 {
		s.t.Errorf("%d of %d bindings are not %s", n, len(given), where)
	}
}

// inForce are the addresses of the set in force.
func (s *site) inForce() map[string]bool {
	s.t.Helper()
	list, err := s.host.ListSet("bindings")
	must(s.t, err)
	out := map[string]bool{}
	for _, e := range list {
		out[e.Text[len(e.Text)-1]] = true
	}
	return out
}
