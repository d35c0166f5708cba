package relay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/postern-fw/postern/integration/lab/labtest"
)

// attack is what a client does to the others of its bridge.
type attack struct {
	name string
	run  func(b *bridge)
	// forged frames arrive without a guard, and none does with it: rules refuse them.
	forged map[string]string
	// again says that it is started again when it has done nothing for a while: it looks for
	// its victims once, and may miss one.
	again bool
	// some is how many arrive in spite of the guard, at most, where a limit stops them.
	some int
}

// tool runs a program at the attacker's end. GATEWAY and VICTIM stand for addresses.
func tool(name, debian string, args ...string) func(b *bridge) {
	return func(b *bridge) {
		b.t.Helper()
		r := strings.NewReplacer("GATEWAY", "10.1.0.1", "VICTIM", b.victim.ip.String(), "OWN", b.attacker.mac.String())
		var with []string
		for _, arg := range args {
			with = append(with, r.Replace(arg))
		}
		labtest.Start(b.t, b.attacker.p, clientEnd, nil, labtest.Tool(b.t, name, debian), with...)
	}
}

func rogue(v server) func(b *bridge) {
	return func(b *bridge) {
		b.t.Helper()
		// The servers' configuration is for an interface of this name.
		p := *b.attacker.p
		labtest.In(b.t, &p, clientEnd, func() error { return renameLink("eth0", "far") })
		v.start(b.t, &p, 1, 600).Says(b.t, v.ready)
	}
}

var attacks = []attack{
	{
		name: "yersinia starves the server", run: tool("yersinia", "yersinia", "-l", "/dev/null", "dhcp", "-interface", "eth0", "-attack", "1"),
		forged: map[string]string{"dhcp.option.dhcp == 1": "no-other-dhcp"}, some: 200,
	},
	{
		name:   "yersinia forges an answer",
		run:    tool("yersinia", "yersinia", "-l", "/dev/null", "dhcp", "-interface", "eth0", "-attack", "0", "-opcode", "2", "-sport", "67", "-dport", "68", "-yi", "VICTIM", "-si", "GATEWAY"),
		forged: map[string]string{"dhcp.type == 2 && udp.srcport == 67 && !(ip.src == 10.1.0.1)": "no-server"},
	},
	{
		name: "a rogue dnsmasq", run: rogue(servers[2]),
		forged: map[string]string{"udp.srcport == 67 && dhcp.type == 2 && !(eth.src == SERVER)": "no-server"},
	},
	{
		name: "a rogue dhcpd", run: rogue(servers[0]),
		forged: map[string]string{"udp.srcport == 67 && dhcp.type == 2 && !(eth.src == SERVER)": "no-server"},
	},
	{
		name: "arpspoof plays the gateway", run: tool("arpspoof", "dsniff", "-i", "eth0", "-t", "VICTIM", "GATEWAY"),
		forged: map[string]string{"arp.opcode == 2 && arp.src.proto_ipv4 == 10.1.0.1 && !(eth.src == SERVER)": "no-foreign-arp"},
	},
	{
		name: "ettercap plays both", again: true, run: tool("ettercap", "ettercap-text-only", "-T", "-q", "-i", "eth0", "-M", "arp:remote", "/VICTIM//", "/GATEWAY//"),
		forged: map[string]string{"arp.opcode == 2 && arp.src.proto_ipv4 == 10.1.0.1 && !(eth.src == SERVER)": "no-foreign-arp"},
	},
	{
		name: "scapy",
		run: func(b *bridge) {
			labtest.Tool(b.t, "scapy", "python3-scapy")
			labtest.Start(b.t, b.attacker.p, clientEnd, []string{"HOME=" + b.t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"},
				"/usr/bin/python3", "testdata/attack.py", "eth0", b.victim.ip.String(), b.victim.mac.String())
		},
		forged: map[string]string{
			"dhcp.id == 1 && dhcp.option.dhcp == 2": "no-server", "dhcp.id == 2 && dhcp.option.dhcp == 5": "no-server",
			"dhcp.id == 3 && dhcp.option.dhcp == 7": "no-foreign-lease", "dhcp.id == 4 && dhcp.option.dhcp == 7": "no-foreign-identity",
			"dhcp.id == 5 && dhcp.option.dhcp == 4": "no-foreign-lease", "dhcp.id == 6 && dhcp.ip.relay == 10.1.0.99": "no-relay",
			"dhcp.id == 7 && dhcp.option.type == 82": "no-relay", "dhcp.id == 8": "no-foreign-identity",
			"dhcp.id == 9": "no-vlan", "dhcp.id == 10": "no-foreign-identity",
			"arp.src.proto_ipv4 == 10.1.0.1 && arp.opcode == 1 && arp.isgratuitous":  "no-foreign-arp",
			"arp.isprobe && arp.dst.proto_ipv4 == VICTIM && !(eth.src == VICTIMMAC)": "no-foreign-arp",
			"arp.opcode == 3": "no-foreign-arp", "ip.src == VICTIM && udp.dstport == 9 && !(eth.src == VICTIMMAC)": "no-foreign-address",
			"eth.src == VICTIMMAC && ip.src == VICTIM && udp.dstport == 10": "no-foreign-address",
		},
	},
}

// TestAttacks: what a client forges reaches the others and the server, but for the guard; and
// meanwhile honest clients get addresses and reach their gateway.
func TestAttacks(t *testing.T) {
	t.Parallel()
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			a.open(t)
			a.shut(t)
		})
	}
}

// matches are the display filters, for this bridge.
func (a *attack) matches(b *bridge) (list []string, rules map[string]string) {
	rules = map[string]string{}
	r := strings.NewReplacer("SERVER", b.up.Ifi[serverEnd].HardwareAddr.String(), "VICTIMMAC", b.victim.mac.String(), "VICTIM", b.victim.ip.String())
	for match, rule := range a.forged {
		list = append(list, r.Replace(match))
		rules[r.Replace(match)] = rule
	}
	return list, rules
}

func (a *attack) open(t *testing.T) {
	b := newBridge(t, false)
	matches, _ := a.matches(b)
	seen := b.tally(matches...)
	begun := time.Now()
	a.run(b)
	for end := time.Now().Add(labtest.Patience); ; {
		if a.again && time.Since(begun) > labtest.Patience/4 {
			begun = time.Now()
			a.run(b)
		}
		b.provoke()
		seen.read()
		missing := slices.DeleteFunc(slices.Clone(matches), func(m string) bool { return seen.count[m] > 0 })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("without a guard these do not arrive: %q", missing)
		}
	}
}

func (a *attack) shut(t *testing.T) {
	b := newBridge(t, true)
	matches, rules := a.matches(b)
	seen := b.tally(matches...)
	begun := time.Now()
	a.run(b)
	b.eventually("the guard refuses", func() bool {
		if a.again && time.Since(begun) > labtest.Patience/4 {
			begun = time.Now()
			a.run(b)
		}
		b.provoke()
		seen.read()
		for _, rule := range rules {
			if b.decided(rule) == 0 {
				return false
			}
		}
		return true
	})
	labtest.DHCPClients[0].Start(t, b.ports[2], clientEnd, int(labtest.Patience.Seconds()), nil).Says(t, "configured 10.1.")
	b.works(b.victim)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		seen.read()
	}
	for _, m := range matches {
		if n := seen.count[m]; n > a.some {
			t.Errorf("%d frames arrived that are %s", n, m)
		}
	}
}

// provoke has an honest client ask, which is what rogue servers wait for.
func (b *bridge) provoke() {
	b.t.Helper()
	c := newClient(b.t, b.ports[2])
	c.broadcast(c.message(1))
}
