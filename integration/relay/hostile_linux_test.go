package relay

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/mdlayher/packet"

	"github.com/postern-fw/postern/integration/lab/labtest"
	"github.com/postern-fw/postern/relay"
	"github.com/postern-fw/postern/relay/binding"
	"github.com/postern-fw/postern/relay/wire"
)

// TestHostileClients: what no honest client sends is counted by its name, goes nowhere, and the
// relay goes on.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	stub(t, s.up)
	g := s.relay(s.config("interfaces: [{names: [seg1]}, {names: [seg2], trusted: true}]", "hops: 4"), "--json")
	c := newCrowd(t, s.segments[0])
	second := newCrowd(t, s.segments[1])
	mac := [6]byte{2, 0, 0, 0, 0, 9}
	base := func(typ dhcpv4.MessageType, more ...dhcpv4.Modifier) []byte {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(mac[:]), dhcpv4.WithMessageType(typ)}, more...)...)
		must(t, err)
		return m.ToBytes()
	}
	discover := base(dhcpv4.MessageTypeDiscover)
	// Its last byte is End.
	end := bytes.LastIndexByte(discover, 255)
	with := func(at int, b ...byte) []byte {
		out := bytes.Clone(discover)
		copy(out[at:], b)
		return out
	}
	frame := func(payload []byte) []byte {
		d := wire.Datagram{EthDst: [6]byte{255, 255, 255, 255, 255, 255}, EthSrc: mac, Dst: 0xffffffff, SrcPort: 68, DstPort: 67, Payload: payload}
		return d.Append(nil, 0, false)
	}
	spoilt := func(at int, b ...byte) []byte {
		out := frame(discover)
		copy(out[at:], b)
		return out
	}
	for _, tt := range []struct {
		name   string
		frame  []byte
		crowd  *crowd
		reason string
	}{
		{"cut in the fixed part", frame(discover[:100]), c, "malformed-dhcp"},
		{"cut in the options", frame(discover[:242]), c, "malformed-dhcp"},
		{"options without an End", frame(discover[:end]), c, "malformed-dhcp"},
		{"an option that runs past the end", frame(append(bytes.Clone(discover[:end]), 12, 255, 1)), c, "malformed-dhcp"},
		{"two types", frame(append(bytes.Clone(discover[:end]), 53, 1, 2, 255)), c, "malformed-dhcp"},
		{"overload that names itself", frame(append(with(108, 52, 1, 2, 255)[:end], 52, 1, 1, 255)), c, "malformed-dhcp"},
		{"no cookie", frame(with(236, 1, 2, 3, 4)), c, "not-dhcp"},
		{"type 0", frame(append(bytes.Clone(discover[:240]), 53, 1, 0, 255)), c, "not-dhcp"},
		{"type 200", frame(append(bytes.Clone(discover[:240]), 53, 1, 200, 255)), c, "not-dhcp"},
		{"hlen 255", frame(with(2, 255)), c, "not-dhcp"},
		{"htype 6", frame(with(1, 6)), c, "not-dhcp"},
		{"an OFFER", frame(base(dhcpv4.MessageTypeOffer)), c, "server-message-from-a-client"},
		{"BOOTREPLY", frame(with(0, 2)), c, "server-message-from-a-client"},
		{"giaddr", frame(with(24, 10, 1, 0, 99)), c, "giaddr-from-a-client"},
		{"option 82", frame(append(bytes.Clone(discover[:end]), 82, 3, 1, 1, 9, 255)), c, "option-82-from-a-client"},
		{"another's chaddr", frame(with(28, 2, 0, 0, 0, 0, 8)), c, "chaddr-not-the-senders"},
		{"hops 4", frame(with(3, 4)), c, "too-many-hops"},
		{"hops 255, from where relays are trusted", frame(with(3, 255)), second, "too-many-hops"},
		{"RELEASE of what it does not hold", frame(base(dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(net.IPv4(10, 1, 0, 77)))), c, "not-the-clients-lease"},
		{"DECLINE likewise", frame(base(dhcpv4.MessageTypeDecline, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 1, 0, 77))))), c, "not-the-clients-lease"},
		{"as long as a frame can be", frame(append(append(bytes.Clone(discover[:end]), bytes.Repeat([]byte{200, 0}, (1471-end)/2)...), 255)), c, "too-long"},
		{"a fragment", spoilt(20, 0x20, 0, 64, 17), c, "fragment"},
		{"a wrong checksum", spoilt(60, 0xff), c, "bad-checksum"},
		{"a UDP length beyond the packet", spoilt(38, 0x7f), c, "malformed-frame"},
		{"an IPv4 length beyond the frame", spoilt(16, 0x7f), c, "malformed-frame"},
	} {
		iface := "seg1"
		if tt.crowd == second {
			iface = "seg2"
		}
		before := s.count(iface, tt.reason)
		_, err := tt.crowd.conn.WriteTo(tt.frame, &packet.Addr{HardwareAddr: mac[:]})
		must(t, err)
		s.eventually(tt.name+" is counted as "+tt.reason, func() bool { return s.count(iface, tt.reason) == before+1 })
	}
	if n := s.count("192.0.2.53", "offer") + s.count("192.0.2.53", "ack"); n != 0 {
		t.Errorf("servers answered %d hostile messages", n)
	}
	honest := newClient(t, s.segments[0])
	checkBinding(s, honest, honest.lease())
	events := map[string]relay.Event{}
	for line := range strings.Lines(g.Output()) {
		var e relay.Event
		if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil {
			events[e.Reason] = e
		}
	}
	if e := events["chaddr-not-the-senders"]; e.Interface != "seg1" || e.Sender == nil || *e.Sender != mac || e.MAC != (binding.MAC{2, 0, 0, 0, 0, 8}) || e.Type != 1 || e.Time.IsZero() {
		t.Errorf("the event of another's chaddr: %+v", e)
	}
	for _, reason := range []string{"giaddr-from-a-client", "option-82-from-a-client", "server-message-from-a-client", "too-many-hops", "not-the-clients-lease"} {
		if _, ok := events[reason]; !ok {
			t.Errorf("no event %s", reason)
		}
	}
	if _, ok := events["bad-checksum"]; ok {
		t.Error("what just went wrong is an event")
	}
}

// TestHostileServers: likewise for what comes from where the servers are.
func TestHostileServers(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	labtest.Address(t, s.up, serverEnd, "192.0.2.99/24")
	s.relay(s.config(allSegments, "option82: {remote-id: '{client}'}"))
	sockets := map[string]*net.UDPConn{}
	labtest.In(t, s.up, serverEnd, func() (err error) {
		for _, ip := range []string{"192.0.2.53", "192.0.2.99"} {
			if sockets[ip], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip), Port: 67}); err != nil {
				return err
			}
			t.Cleanup(func() { sockets[ip].Close() })
		}
		return nil
	})
	c := newClient(t, s.segments[0])
	discover := c.message(dhcpv4.MessageTypeDiscover)
	c.broadcast(discover)
	buf := make([]byte, 2048)
	n, err := sockets["192.0.2.53"].Read(buf)
	must(t, err)
	asked, err := dhcpv4.FromBytes(buf[:n])
	must(t, err)
	offer := func(more ...dhcpv4.Modifier) []byte {
		m, err := dhcpv4.NewReplyFromRequest(asked, append([]dhcpv4.Modifier{dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithYourIP(net.IPv4(10, 1, 0, 7)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 53))), dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionRelayAgentInformation, Value: asked.RelayAgentInfo()})}, more...)...)
		must(t, err)
		return m.ToBytes()
	}
	info := func(circuit, remote string) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte(circuit)), dhcpv4.OptGeneric(dhcpv4.AgentRemoteIDSubOption, []byte(remote))))
	}
	good := offer()
	end := bytes.LastIndexByte(good, 255)
	own := c.mac.String()
	for _, tt := range []struct {
		name, from, reason string
		message            []byte
	}{
		{"a stranger", "192.0.2.99", "unknown-server", good},
		{"cut off", "192.0.2.53", "malformed-dhcp", good[:end-3]},
		{"two types", "192.0.2.53", "malformed-dhcp", append(bytes.Clone(good[:end]), 53, 1, 5, 255)},
		{"no options", "192.0.2.53", "not-dhcp", good[:236]},
		{"a client's type", "192.0.2.53", "client-message-from-a-server", offer(dhcpv4.WithMessageType(dhcpv4.MessageTypeDiscover))},
		{"another agent's giaddr", "192.0.2.53", "unknown-giaddr", offer(dhcpv4.WithGatewayIP(net.IPv4(192, 0, 2, 1)))},
		{"no option 82", "192.0.2.53", "no-option-82", offer(func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionRelayAgentInformation) })},
		{"a circuit that is none of ours", "192.0.2.53", "foreign-circuit", offer(info("seg9:0", own))},
		{"another circuit of ours, with this one's giaddr", "192.0.2.53", "no-request", offer(info("seg2:0", own))},
		{"another circuit of ours", "192.0.2.53", "foreign-circuit", offer(info("seg1:0", own), dhcpv4.WithGatewayIP(net.IPv4(10, 2, 0, 1)))},
		{"another remote ID", "192.0.2.53", "foreign-remote-id", offer(info("seg1:0", "02:00:00:00:00:99"))},
		{"another transaction", "192.0.2.53", "no-request", offer(dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}))},
		{"another client", "192.0.2.53", "no-request", offer(dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 99}))},
		{"an ACK of what was not requested", "192.0.2.53", "no-request", offer(dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithLeaseTime(600))},
	} {
		at := tt.from
		if tt.reason == "unknown-server" {
			at = "unknown"
		}
		before := s.count(at, tt.reason)
		_, err := sockets[tt.from].WriteToUDP(tt.message, &net.UDPAddr{IP: net.IPv4(10, 1, 0, 1), Port: 67})
		must(t, err)
		s.eventually(tt.name+" is counted as "+tt.reason, func() bool { return s.count(at, tt.reason) == before+1 })
	}
	_, err = sockets["192.0.2.53"].WriteToUDP(good, &net.UDPAddr{IP: net.IPv4(10, 1, 0, 1), Port: 67})
	must(t, err)
	if m := c.gets(discover, dhcpv4.MessageTypeOffer); m.RelayAgentInfo() != nil || !m.YourIPAddr.Equal(net.IPv4(10, 1, 0, 7)) {
		t.Errorf("the first thing that arrives is %s", m.Summary())
	}
	if len(s.bindings()) != 0 {
		t.Errorf("bindings: %v", s.bindings())
	}
}
