package bpf

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/firewall"
)

// gratuitous is announcement for 192.0.2.x with the hardware address's last byte mac.
func gratuitous(x, mac byte) []byte {
	b := announcement()
	b[31], b[41], b[11], b[27] = x, x, mac, mac
	return b
}

const setPolicy = `policy: p
sets:
  vips: {type: ipv4, elements: [192.0.2.1, 192.0.2.16/28, 192.0.2.100..192.0.2.109]}
  pairs: {type: [mac, ipv4], elements: [[02:00:00:00:00:01, 192.0.2.0/29], [02:00:00:00:00:02..02:00:00:00:00:05, 192.0.2.50]]}
  six: {type: ipv6, elements: ["fe80::/10", "2001:db8::1"]}
  ports: {type: port, elements: [67, 5353, 1..50]}
  names: {type: string, elements: [lo, eth0]}
  ids: {type: number, elements: [1, 2, 3]}
rules:
  - {name: pair, match: '(eth.addr, arp.src.proto_ipv4) in @pairs', verdict: drop}
  - {name: vip, match: 'arp.src.proto_ipv4 in @vips && iface.name in @names', verdict: accept}
  - {name: six, match: 'ipv6.addr in @six && !(udp.port in @ports)', verdict: {mark: 6}}
  - {name: port, match: 'udp.port in @ports', verdict: drop}
  - {name: router, match: '(dhcp.option.router, ip.src) in @both || dhcp.option.dhcp in @ids', verdict: drop}
default: accept
malformed: match
`

// TestSets: sets declared, added to and taken from while the program is loaded.
func TestSets(t *testing.T) {
	pin(t)
	src := strings.Replace(setPolicy, "sets:\n", "sets:\n  both: {type: [ipv4, ipv4], elements: [[192.168.0.0/16, 0.0.0.0/0]]}\n", 1)
	for _, linear := range []int{12, -1} {
		p := both(t, src, Options{linear: linear})
		all := func(when string) {
			for x := range 256 {
				p.agree(when, gratuitous(byte(x), byte(x%7)), 0)
			}
		}
		all("declared")
		for _, f := range corpus(t)[:20_000] {
			if !p.agree("corpus", f, 0) {
				t.FailNow()
			}
		}
		now := func() int64 {
			var ts unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
				t.Fatal(err)
			}
			return ts.Nano()
		}
		change := func(text string, deadline int64, add bool) {
			decl := p.fw.Policy().Sets[1]
			e, err := decl.Element(text)
			if err != nil {
				t.Fatal(err)
			}
			e.Deadline = deadline
			p.fw.UpdateSet("vips", func(s *firewall.Set) {
				if add {
					s.Add(e)
				} else if !s.Delete(e) {
					t.Errorf("%s is not in Classify's set", text)
				}
			})
			if err := p.engine.UpdateSet("vips", func(s *SetUpdate) error {
				if add {
					return s.Add(e)
				}
				ok, err := s.Delete(e)
				if !ok {
					t.Errorf("%s is not in the kernel's set", text)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		change("192.0.2.200", 0, true)
		change("192.0.2.0/25", now()+1e12, true)
		all("added")
		change("192.0.2.1", 0, false)
		change("192.0.2.220/30", now()-1, true)
		change("192.0.2.220", now()+1e12, true)
		change("192.0.2.221", now()-1, true)
		all("half of it ended")
		change("192.0.2.0/25", 0, false)
		all("deleted")
		if got, _ := p.run(gratuitous(220, 6), 0); got.rule != 1 {
			t.Errorf("an element that lives is not found: %v", got)
		}
		if got, _ := p.run(gratuitous(221, 6), 0); got.rule == 1 {
			t.Errorf("an element that has ended is found: %v", got)
		}
		t.Logf("%d frames compared", p.compared)
	}
}

// TestLimits: as many frames pass as Classify lets pass, of each key.
func TestLimits(t *testing.T) {
	pin(t)
	const src = `policy: p
rules:
  - {name: each, match: arp.opcode == 2, limit: {rate: 1/d, burst: 3, per: [arp.src.proto_ipv4, eth.src]}, verdict: accept}
  - {name: marks, match: arp, limit: {rate: 1/h, burst: 40}, verdict: {mark: 5}}
  - {name: absent, match: arp, limit: {rate: 1/d, burst: 40, per: ip.src}, verdict: accept}
  - {name: asked, match: dhcp.option.dhcp, limit: {rate: 1/d, burst: 2, per: dhcp.option.requested_ip_address}, verdict: accept}
  - {name: host, match: dhcp.option.hostname, limit: {rate: 1/d, burst: 2, per: [dhcp.option.hostname, sender.comm]}, verdict: accept}
  - {name: first, match: dhcp, limit: {rate: 1/d, burst: 3, per: [dhcp.option.type, dhcp.option.value]}, verdict: accept}
  - {name: client, match: dhcp, limit: {rate: 1/d, burst: 2, per: [iface.name, dhcp.hw.mac_addr]}, verdict: accept}
`
	for _, linear := range []int{12, -1} {
		p := both(t, src, Options{linear: linear})
		for i := range 200 {
			p.agree(fmt.Sprint(i), gratuitous(byte(i*i%7), byte(i%3)), 0)
		}
		for _, f := range corpus(t) {
			p.pkt.Decode(f, nil)
			if p.pkt.HasDHCP && !p.agree("corpus", f, 0) {
				t.FailNow()
			}
		}
		counters, err := p.engine.Counters(p.fw.Policy())
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range p.fw.Counters() {
			if got := counters[i]; got != want {
				t.Errorf("counter %d: kernel %+v, Classify %+v", i, got, want)
			}
		}
		t.Logf("%d frames compared, counters %v", p.compared, counters)
	}
}
