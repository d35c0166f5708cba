package relay

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/relay"
	"github.com/postern-fw/postern/relay/wire"
)

// TestOperations: each client, with each policy for option 82, gets an address, renews it (by
// unicast), rebinds it (by broadcast), releases it, and declines one that somebody else uses, all
// through the relay; and tshark reads the same in what passed.
func TestOperations(t *testing.T) {
	t.Parallel()
	for i, policy := range []string{"drop", "keep", "replace", "append"} {
		v := servers[i%len(servers)]
		t.Run(policy+", "+v.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, len(stations)+1)
			v.serve(s, 20)
			s.relay(s.config(allSegments, fmt.Sprintf("option82: {policy: %s, circuit-id: '{iface}/{vlan}', remote-id: '{client}', server-id-override: %t}", policy, v.name == "dnsmasq")))
			c := s.captureAll()
			var all sync.WaitGroup
			var heard []*ear
			for i, st := range stations {
				e := listen(t, s.segments[i])
				heard = append(heard, e)
				all.Go(func() { operate(s, &st, e) })
			}
			e := listen(t, s.segments[len(stations)])
			heard = append(heard, e)
			all.Go(func() { operateLibrary(s, e) })
			all.Wait()
			if !t.Failed() {
				c.agrees(heard)
			}
		})
	}
}

// operate leads a client through all that one does.
func operate(s *site, st *station, e *ear) {
	// Fatal ends this goroutine alone; the test sees that it has failed.
	t, dir := s.t, s.t.TempDir()
	g := st.start(t, e.p, dir, false)
	s.eventually(st.name+" has an address", func() bool { return s.of(e.p) != nil })
	g.Says(t, st.has)
	changes := func(op string, act func()) {
		before := s.of(e.p)
		act()
		s.eventually(st.name+" does: "+op, func() bool { return e.heard(op) })
		s.eventually("the lease is longer after: "+op, func() bool { b := s.of(e.p); return b != nil && before != nil && b.Expiry > before.Expiry })
	}
	again := func() {
		if st.renew != nil {
			g.Signal(t, st.renew)
		}
	}
	changes("renew", again)
	uncut := cut(s, e.p)
	changes("rebind", again)
	uncut()
	st.release(t, e.p, dir, g)
	told := time.Now()
	s.eventually(st.name+" releases its address", func() bool {
		// dhcpcd misses a signal now and then.
		if !e.heard("release") && !g.Ended() && time.Since(told) > time.Second {
			told = time.Now()
			st.release(t, e.p, dir, g)
		}
		return e.heard("release") && s.of(e.p) == nil
	})
	g.Kill()
	occupy(s, e.p)
	g = st.start(t, e.p, dir, true)
	s.eventually(st.name+" declines an address that is in use", func() bool { return e.heard("decline") && s.of(e.p) == nil })
	g.Kill()
}

// of is the binding of the client at a segment.
func (s *site) of(p *lab.Pair) *relay.Item {
	for _, b := range s.bindings() {
		if b.Interface == p.Ifi[agentEnd].Name {
			return &b
		}
	}
	return nil
}

// cut keeps what a client sends to one machine from it; uncut ends that.
func cut(s *site, p *lab.Pair) (uncut func()) {
	nft := func(rules string) {
		g := labtest.Start(s.t, p, clientEnd, nil, labtest.Tool(s.t, "nft", "nftables"), rules)
		if g.Ends(s.t) != 0 {
			s.t.Error(g.Output())
		}
	}
	nft("table netdev cut { chain out { type filter hook egress device eth0 priority 0; udp dport 67 ip daddr != 255.255.255.255 drop; }; }")
	return func() { nft("delete table netdev cut") }
}

// occupy answers who asks whether an address is in use, for the first one that is asked for.
func occupy(s *site, p *lab.Pair) {
	var conn *packet.Conn
	labtest.In(s.t, p, agentEnd, func() (err error) {
		conn, err = packet.Listen(p.Ifi[agentEnd], packet.Raw, unix.ETH_P_ARP, nil)
		return err
	})
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		own, first := []byte{2, 0, 0, 0, 0, 0xee}, ""
		for b := make([]byte, 128); ; {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			const spa, tpa = 28, 38
			if n < 42 || string(b[spa:spa+4]) != "\x00\x00\x00\x00" || first != "" && first != string(b[tpa:tpa+4]) {
				continue
			}
			first = string(b[tpa : tpa+4])
			reply := slices.Concat(b[6:12], own, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 2}, own, b[tpa:tpa+4], b[6:12], make([]byte, 4+18))
			_, _ = conn.WriteTo(reply, &packet.Addr{HardwareAddr: reply[:6]}) // it is asked again
		}
	}()
}

// ear hears what a client says, at the agent's end.
type ear struct {
	p     *lab.Pair
	mu    sync.Mutex
	said  []string // of each message: operation, transaction
	known map[string]bool
}

func listen(t testing.TB, p *lab.Pair) *ear {
	t.Helper()
	e := &ear{p: p, known: map[string]bool{}}
	var conn *packet.Conn
	labtest.In(t, p, agentEnd, func() (err error) {
		conn, err = packet.Listen(p.Ifi[agentEnd], packet.Raw, unix.ETH_P_IP, nil)
		return err
	})
	t.Cleanup(func() { conn.Close() })
	go func() {
		var d wire.Datagram
		var m dhcp.Message
		for b := make([]byte, 2048); ; {
			n, _, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if d.Decode(b[:n], false) == "" && d.DstPort == 67 {
				m.Decode(d.Payload)
				e.note(operation(m.Type, m.CIAddr() != 0, d.Dst == 0xffffffff), m.XID())
			}
		}
	}()
	return e
}

func (e *ear) note(op string, xid uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known[op] = true
	e.said = append(e.said, fmt.Sprintf("%s %#08x", op, xid))
}

func (e *ear) heard(op string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[op]
}

// operation is what a message means (RFC 2131, 4.3.2).
func operation(typ uint8, has, broadcast bool) string {
	switch {
	case typ == 3 && has && broadcast:
		return "rebind"
	case typ == 3 && has:
		return "renew"
	}
	return map[uint8]string{1: "discover", 3: "request", 4: "decline", 7: "release"}[typ]
}

// captureAll is of the segments, and the way to the server.
func (s *site) captureAll() *capture {
	s.t.Helper()
	c := &capture{s: s, file: s.dir + "/all.pcapng"}
	args := []string{"-q", "-w", c.file}
	for _, p := range append([]*lab.Pair{s.up}, s.segments...) {
		args = append(args, "-i", p.Ifi[agentEnd].Name, "-f", "udp port 67")
	}
	c.run = labtest.Start(s.t, s.up, agentEnd, nil, labtest.Tool(s.t, "dumpcap", "tshark"), args...)
	c.run.Says(s.t, "File: ")
	return c
}

// agrees: tshark reads of clients what was heard of them, and each message that the relay passed on
// names the client and where it is.
func (c *capture) agrees(heard []*ear) {
	t := c.s.t
	t.Helper()
	read, passed := map[string][]string{}, map[string]bool{}
	c.s.eventually("tshark reads the same, and that all of it has gone to the server", func() bool {
		read = map[string][]string{}
		for _, r := range c.rows("dhcp.type == 1", "frame.interface_name", "dhcp.option.dhcp", "dhcp.ip.client", "ip.dst", "dhcp.id", "dhcp.ip.relay",
			"dhcp.option.agent_information_option.agent_circuit_id", "dhcp.option.agent_information_option.agent_remote_id", "dhcp.hw.mac_addr") {
			var typ uint8
			fmt.Sscan(r[1], &typ)
			var xid uint32
			fmt.Sscanf(r[4], "0x%x", &xid)
			op := operation(typ, r[2] != "0.0.0.0", r[3] == "255.255.255.255")
			if r[5] == "0.0.0.0" {
				read[r[0]] = append(read[r[0]], fmt.Sprintf("%s %#08x", op, xid))
			} else if r[0] == "near" {
				segment := "seg" + strings.Split(r[5], ".")[1]
				mac := strings.Split(r[8], ",")[0]
				if unhex(r[6]) != segment+"/0" || unhex(r[7]) != mac {
					t.Errorf("%s of %s behind %s went on with circuit ID %q and remote ID %q", op, mac, segment, unhex(r[6]), unhex(r[7]))
				}
				passed[fmt.Sprintf("%s %d %v", segment, typ, r[2] != "0.0.0.0")] = true
			}
		}
		for i, e := range heard {
			for _, w := range []string{"1 false", "3 false", "3 true", "4 false"} { // DISCOVER, REQUEST, rebinding, DECLINE
				if !passed[e.p.Ifi[agentEnd].Name+" "+w] && (w != "4 false" || i < len(stations)) {
					return false // it has not gone to the server, or is not in the file yet
				}
			}
			e.mu.Lock()
			same := slices.Equal(slices.Sorted(slices.Values(e.said)), slices.Sorted(slices.Values(read[e.p.Ifi[agentEnd].Name])))
			e.mu.Unlock()
			if !same {
				return false
			}
		}
		return true
	})
	if bad := c.rows("_ws.malformed || (dhcp.type == 2 && !(udp.checksum.status == 1) && dhcp.ip.relay != 0.0.0.0 && udp.dstport == 68)", "frame.number"); len(bad) > 0 {
		t.Errorf("tshark finds fault with frames %v", bad)
	}
}

// unhex reads bytes as tshark writes them.
func unhex(text string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil {
		return text
	}
	return string(b)
}
