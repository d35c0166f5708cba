package relay

import (
	"encoding/hex"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestLife leads clients through the lives of leases, with each policy for option 82, and
// with servers that are told to name the agent as the server (RFC 5107).
func TestLife(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"drop", "keep", "replace", "append"} {
		for i, v := range servers {
			// The others do not know RFC 5107.
			override := v.name == "dnsmasq" && policy != "keep"
			t.Run(fmt.Sprintf("%s, %s", policy, v.name), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, 2)
				v.serve(s, 600)
				s.relay(s.config(allSegments, fmt.Sprintf("option82: {policy: %s, circuit-id: '{iface}/{vlan}', remote-id: '{host} {client}', server-id-override: %t}", policy, override)))
				c := newClient(t, s.segments[i%2])
				capture, answers := s.capture("near"), s.capture(c.p.Ifi[agentEnd].Name)
				if policy != "drop" {
					c.own = []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte("downstream"))))}
				}
				life(s, c, policy, override)
				capture.check(policy, c, override)
				answers.sound()
			})
		}
	}
}

func life(s *site, c *client, policy string, override bool) {
	t := s.t
	if policy == "drop" {
		forged := c.message(dhcpv4.MessageTypeDiscover, dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.LinkSelectionSubOption, []byte{10, 9, 0, 0}))))
		c.broadcast(forged)
		s.eventually("option 82 from a client is counted", func() bool {
			return s.count(c.p.Ifi[agentEnd].Name, "option-82-from-a-client") == 1
		})
	}
	for _, broadcast := range []bool{true, false} {
		ack := c.lease(dhcpv4.WithBroadcast(broadcast))
		checkBinding(s, c, ack)
		info := ack.RelayAgentInfo()
		if back := policy == "keep" || policy == "append"; (info != nil) != back || back && string(info.Get(dhcpv4.AgentCircuitIDSubOption)) != "downstream" {
			t.Errorf("with policy %s the client gets option 82 %v", policy, info)
		}
		server := ack.ServerIdentifier()
		if agent := server.String() == strings.Replace("10.x.0.1", "x", fmt.Sprint(ack.YourIPAddr.To4()[1]), 1); agent != override {
			t.Errorf("server identifier %v, with override %t", server, override)
		}
		c.configure(ack)
		before := s.bindings()[c.ip.String()].Expiry
		time.Sleep(10 * time.Millisecond)

		own := c.own
		if !override {
			c.own = nil // what goes to the server itself
		}
		renew := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(c.ip))
		c.unicast(renew, server)
		c.gets(renew, dhcpv4.MessageTypeAck)
		c.own = own
		s.eventually("the renewed lease is longer", func() bool { return s.bindings()[c.ip.String()].Expiry > before })
		before = s.bindings()[c.ip.String()].Expiry
		time.Sleep(10 * time.Millisecond)

		rebind := c.message(dhcpv4.MessageTypeRequest, dhcpv4.WithClientIP(c.ip), dhcpv4.WithBroadcast(broadcast))
		c.broadcast(rebind)
		c.gets(rebind, dhcpv4.MessageTypeAck)
		if after := s.bindings()[c.ip.String()].Expiry; after <= before {
			t.Errorf("rebound until %d, before until %d", after, before)
		}
		ends(s, c, broadcast, server, ack)
	}
}

// ends ends a lease: by DECLINE or by RELEASE.
func ends(s *site, c *client, decline bool, server net.IP, ack *dhcpv4.DHCPv4) {
	if decline {
		c.broadcast(c.message(dhcpv4.MessageTypeDecline, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(c.ip)),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ack.ServerIdentifier()))))
	} else {
		c.unicast(c.message(dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(c.ip), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(ack.ServerIdentifier()))), server)
	}
	s.eventually("the binding is gone", func() bool { _, there := s.bindings()[c.ip.String()]; return !there })
	c.unconfigure()
}

// checkBinding: what the client has been told the agent knows.
func checkBinding(s *site, c *client, ack *dhcpv4.DHCPv4) {
	s.t.Helper()
	b, ok := s.bindings()[ack.YourIPAddr.String()]
	if !ok || b.MAC.String() != c.mac.String() || b.Interface != c.p.Ifi[agentEnd].Name || b.Server.String() != ack.ServerIdentifier().String() {
		s.t.Errorf("the client has %s, and the agent knows %+v", ack.YourIPAddr, b)
	}
}

// capture is tshark's at the agent.
type capture struct {
	s    *site
	file string
	run  *labtest.Program
}

func (s *site) capture(iface string) *capture {
	s.t.Helper()
	c := &capture{s: s, file: filepath.Join(s.dir, iface+".pcapng")}
	c.run = labtest.Start(s.t, s.up, agentEnd, nil, labtest.Tool(s.t, "dumpcap", "tshark"), "-q", "-i", iface, "-w", c.file, "-f", "udp port 67")
	c.run.Says(s.t, "File: ")
	return c
}

// rows are tshark's reading of the fields of the frames that match.
func (c *capture) rows(match string, fields ...string) (rows [][]string) {
	c.s.t.Helper()
	args := []string{"-n", "-r", c.file, "-o", "udp.check_checksum:TRUE", "-Y", match, "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command(labtest.Tool(c.s.t, "tshark", "tshark"), args...).Output()
	if err != nil {
		c.s.t.Fatalf("tshark: %v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Split(strings.TrimSpace(line), "|"); len(f) == len(fields) {
			rows = append(rows, f)
		}
	}
	return rows
}

// check holds what went to and fro between agent and server against tshark's reading.
func (c *capture) check(policy string, client *client, override bool) {
	t := c.s.t
	t.Helper()
	segment := client.p.Ifi[agentEnd].Name
	agent := "10." + strings.TrimPrefix(segment, "seg") + ".0.1"
	own := segment + "/0"
	want := map[string]string{"drop": own, "replace": own, "keep": "downstream", "append": "downstream," + own}[policy]
	var rows [][]string
	c.s.eventually("the capture is complete", func() bool {
		rows = c.rows("dhcp.ip.relay != 0.0.0.0", "dhcp.type", "dhcp.option.dhcp", "dhcp.hops", "dhcp.ip.relay",
			"dhcp.option.agent_information_option.agent_circuit_id", "dhcp.option.agent_information_option.server_id_override")
		return len(rows) >= 13 // at least: 2 × (4 + 2), and a DECLINE
	})
	for _, r := range rows {
		circuits := strings.Split(r[4], ",")
		for i := range circuits {
			b, _ := hex.DecodeString(strings.ReplaceAll(circuits[i], ":", ""))
			circuits[i] = string(b)
		}
		got := strings.Join(circuits, ",")
		if r[0] == "1" && (r[2] != "1" || got != want || override != (r[5] == agent)) || r[3] != agent || r[0] == "2" && got != want && policy != "append" {
			t.Errorf("tshark reads op %s type %s hops %s giaddr %s circuit ID %q override %q; want circuit ID %q", r[0], r[1], r[2], r[3], got, r[5], want)
		}
	}
	types := []string{}
	for _, r := range rows {
		if !slices.Contains(types, r[1]) {
			types = append(types, r[1])
		}
	}
	for _, typ := range []string{"1", "2", "3", "4", "5"} {
		if !slices.Contains(types, typ) {
			t.Errorf("message types %v between agent and server, %s is missing", types, typ)
		}
	}
	if bad := c.rows("_ws.malformed", "frame.number"); len(bad) > 0 {
		t.Errorf("tshark finds fault with frames %v", bad)
	}
}

// sound: tshark finds no fault with what the agent has sent to clients.
func (c *capture) sound() {
	c.s.t.Helper()
	sent := "udp.srcport == 67 && udp.dstport == 68 && dhcp.ip.relay != 0.0.0.0"
	c.s.eventually("the capture of answers is complete", func() bool { return len(c.rows(sent, "frame.number")) >= 6 })
	if good, all := c.rows(sent+" && udp.checksum.status == 1 && !_ws.malformed && ip.len <= 1500", "frame.number"), c.rows(sent, "frame.number"); len(good) != len(all) {
		c.s.t.Errorf("tshark finds fault with some of frames %v, not with %v", all, good)
	}
}
