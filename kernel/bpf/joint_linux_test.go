package bpf

import (
	"slices"
	"testing"

	"github.com/postern-fw/postern/firewall"
)

// message is a DHCP REQUEST of 02:00:00:00:00:01 with options.
func message(options ...[]byte) []byte {
	msg := make([]byte, 240)
	msg[0], msg[1], msg[2] = 1, 1, 6
	copy(msg[28:], []byte{2, 0, 0, 0, 0, 1})
	copy(msg[236:], "\x63\x82\x53\x63")
	msg = append(msg, 53, 1, 3)
	msg = append(append(msg, slices.Concat(options...)...), 255)
	n := len(msg)
	head := []byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, byte((n + 28) >> 8), byte(n + 28), 0, 0, 0, 0, 64, 17, 0, 0,
		0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67, byte((n + 8) >> 8), byte(n + 8), 0, 0}
	return append(head, msg...)
}

func opt(code byte, data ...byte) []byte { return append([]byte{code, byte(len(data))}, data...) }

// TestJoint: several fields in options looked up and compared together, any occurrence of
// each with any of the others.
func TestJoint(t *testing.T) {
	pin(t)
	const src = `policy: p
malformed: match
sets:
  leases: {type: [mac, ipv4], elements: [['02:00:00:00:00:01', 192.0.2.1], ['02:00:00:00:00:02', 192.0.2.2]]}
  pairs: {type: [ipv4, ipv4], elements: [[192.0.2.9, 198.51.100.0/24]]}
  three: {type: [ipv4, string, number], elements: [[192.0.2.7, host, 12]]}
rules:
  - {name: lease, match: '(dhcp.hw.mac_addr, dhcp.option.requested_ip_address) in @leases', verdict: accept}
  - {name: pair, match: '(dhcp.option.requested_ip_address, dhcp.option.router) in @pairs', verdict: accept}
  - {name: three, match: '(dhcp.option.requested_ip_address, dhcp.option.agent_information_option.subscriber_id, dhcp.option.type) in @three', verdict: accept}
  - {name: same, match: 'dhcp.option.router == dhcp.option.dhcp_server_id', verdict: accept}
  - {name: differ, match: 'dhcp.option.hostname != dhcp.client_id.undef && dhcp.option.hostname > dhcp.client_id.undef', verdict: accept}
  - {name: part, match: 'dhcp.option.value[1:3] == dhcp.hw.mac_addr[0:3]', verdict: accept}
`
	for _, linear := range []int{12, -1} {
		p := both(t, src, Options{linear: linear})
		for _, c := range []struct {
			frame []byte
			rule  string
		}{
			{message(opt(50, 192, 0, 2, 1)), "lease"},
			{message(opt(50, 192, 0, 2, 2)), "default"},
			{message(opt(61, 1, 2, 0, 0, 0, 0, 2), opt(50, 192, 0, 2, 2)), "lease"},
			{message(opt(50, 192, 0, 2, 8), opt(50, 192, 0, 2, 1)), "lease"},
			{message(opt(50, 192, 0, 2, 9), opt(3, 10, 0, 0, 1, 198, 51, 100, 1)), "pair"},
			{message(opt(3, 10, 0, 0, 1, 198, 51, 100, 1), opt(50, 192, 0, 2, 9)), "pair"},
			{message(opt(3, 10, 0, 0, 1), opt(50, 192, 0, 2, 9)), "default"},
			{message(opt(82, 6, 1, 'a', 6, 4, 'h', 'o', 's', 't'), opt(12, 'x'), opt(50, 192, 0, 2, 7)), "three"},
			{message(opt(82, 6, 4, 'h', 'o', 's', 't'), opt(50, 192, 0, 2, 7)), "default"},
			{message(opt(3, 10, 0, 0, 1, 10, 0, 0, 2), opt(54, 10, 0, 0, 2)), "same"},
			{message(opt(12, 'b'), opt(61, 0, 'a', 'x')), "differ"},
			{message(opt(12, 'a', 'x', 0, 'z'), opt(61, 0, 'a', 'x', 0, 'q')), "default"},
			{message(opt(43, 9, 2, 0, 0)), "part"},
		} {
			p.agree(c.rule, c.frame, 0)
			if got := p.last.RuleName(); got != c.rule {
				t.Errorf("Classify: %s, want %s: %x", got, c.rule, c.frame)
			}
		}
	}
}

// TestJointBound: a frame whose options would be combined too often is refused.
func TestJointBound(t *testing.T) {
	pin(t)
	p := both(t, `policy: p
sets: {s: {type: [number, number, number]}}
rules:
  - {name: r, match: '(dhcp.option.agent_information_option.suboption, dhcp.option.agent_information_option.suboption, dhcp.option.agent_information_option.suboption) in @s', verdict: drop}
default: accept
`, Options{})
	if got, _ := p.run(message(opt(82, make([]byte, 60)...)), 0); got.verdict != uint32(firewall.Accept) {
		t.Errorf("30 sub-options: %v", got)
	}
	if got, _ := p.run(message(opt(82, make([]byte, 254)...)), 0); got.verdict != uint32(firewall.Drop) || got.reason != uint32(firewall.ReasonTooManyLookups) {
		t.Errorf("127 sub-options: %v", got)
	}
}
