package hostile

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/postern-fw/postern/integration/lab"
	"github.com/postern-fw/postern/integration/lab/labtest"
)

// TestARP: tools that claim addresses, on a node that announces its virtual ones. That is
// what 192.0.2.16/28 are; 192.0.2.70 to .79 and the gateway's 192.0.2.254 are not.
func TestARP(t *testing.T) {
	t.Parallel()
	node := example(t, "node-agent.yaml", "[eth0]", "packet-sockets")
	arping := func(args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
		return command("arping", "iputils-arping", append([]string{"-c", "1", "-w", "1", "-I", "near"}, args...)...)
	}
	for _, u := range []use{
		{
			name: "arpspoof poisons a victim",
			run:  command("arpspoof", "dsniff", "-i", "near", "-t", "192.0.2.1", "192.0.2.77"), endless: true,
			forged: []forgery{{"arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
			victim: "192.0.2.77",
		},
		{
			name: "arpspoof announces an address of the node's",
			run:  command("arpspoof", "dsniff", "-i", "near", "192.0.2.20"), endless: true,
			honest: []string{"arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.20"},
		},
		{
			name: "ettercap poisons two hosts that it has found",
			run:  command("ettercap", "ettercap-text-only", "-T", "-q", "-i", "near", "-M", "arp:oneway", "/192.0.2.1//", "/192.0.2.254//"), endless: true,
			forged: []forgery{{"arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.254", "no-foreign-arp"}},
			honest: []string{"arp.opcode == 1 && arp.dst.proto_ipv4 == 192.0.2.1 && arp.src.proto_ipv4 == 192.0.2.5"},
		},
		{
			name: "arping -U for another's address", nonlocal: true,
			run:    arping("-U", "192.0.2.77"),
			forged: []forgery{{"arp.opcode == 1 && arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
			victim: "192.0.2.77",
		},
		{
			name: "arping -A for another's address", nonlocal: true,
			run:    arping("-A", "192.0.2.77"),
			forged: []forgery{{"arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
			victim: "192.0.2.77",
		},
		{
			name: "arping -U for an address of the node's", nonlocal: true,
			run:    arping("-U", "192.0.2.20"),
			honest: []string{"arp.opcode == 1 && arp.src.proto_ipv4 == 192.0.2.20"},
		},
		{
			name: "arping -A for an address of the node's", nonlocal: true,
			run:    arping("-A", "192.0.2.20"),
			honest: []string{"arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.20"},
		},
		{
			name:   "arping -D makes another give its address up",
			run:    arping("-D", "192.0.2.77"),
			forged: []forgery{{"arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
		},
		{
			name:   "arping -D for an address of the node's",
			run:    arping("-D", "192.0.2.20"),
			honest: []string{"arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == 192.0.2.20"},
		},
		{
			name:   "nping forges a reply",
			run:    nping("--arp", "--arp-type", "ARP-reply", "--arp-sender-ip", "192.0.2.77", "192.0.2.1"),
			forged: []forgery{{"arp.opcode == 2 && arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
			victim: "192.0.2.77",
		},
		{
			name:   "nping forges a reply with another's hardware address",
			run:    nping("--arp", "--arp-type", "ARP-reply", "--source-mac", "02:00:00:00:00:99", "--arp-sender-mac", "02:00:00:00:00:99", "--arp-sender-ip", "192.0.2.20", "192.0.2.1"),
			forged: []forgery{{"arp.opcode == 2 && eth.src == 02:00:00:00:00:99", "own-hardware-address"}},
		},
		{
			name:   "nping forges RARP",
			run:    nping("--arp", "--arp-type", "RARP", "--arp-sender-mac", "02:00:00:00:00:99", "192.0.2.1"),
			forged: []forgery{{"arp.opcode == 3", "no-foreign-arp"}},
		},
		{
			name:   "nping asks for its neighbour",
			run:    nping("--arp", "--arp-type", "ARP", "192.0.2.1"),
			honest: []string{"arp.opcode == 1 && arp.src.proto_ipv4 == 192.0.2.5 && arp.dst.proto_ipv4 == 192.0.2.1"},
		},
		{
			name: "scapy", run: scapy("arp.py", "near", "192.0.2.71"), victim: "192.0.2.71",
			forged: []forgery{
				{"arp.opcode == 1 && arp.src.proto_ipv4 == 192.0.2.71", "no-foreign-arp"},
				{"arp.dst.proto_ipv4 == 192.0.2.72", "no-foreign-arp"},
				{"arp.src.hw_mac == 52:54:00:00:00:73", "no-foreign-arp"},
				{"arp.src.hw_mac == 52:54:00:00:00:74", "no-foreign-arp"},
				{"eth.type == 0x88a8 && arp.src.proto_ipv4 == 192.0.2.75", "no-foreign-arp"},
				{"eth.len && llc.type == 0x0806 && arp.src.proto_ipv4 == 192.0.2.76", "no-foreign-arp"},
				{"eth.type == 0x8870 && llc.type == 0x0806 && arp.src.proto_ipv4 == 192.0.2.78", "no-foreign-arp"},
				{"eth.src == 02:00:00:00:00:99", "own-hardware-address"},
				{"arp.hw.size == 255", "malformed"},
			},
			honest: []string{
				"arp.isannouncement && arp.src.proto_ipv4 == 192.0.2.20",
				"arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == 192.0.2.21",
				"arp.src.proto_ipv4 == 192.0.2.5 && arp.dst.proto_ipv4 == 192.0.2.1",
			},
		},
		{
			name: "tcpreplay of a capture with both", run: tcpreplay,
			forged: []forgery{
				{"arp.src.proto_ipv4 == 192.0.2.77 && arp.opcode == 1", "no-foreign-arp"},
				{"arp.src.proto_ipv4 == 192.0.2.77 && arp.opcode == 2", "no-foreign-arp"},
			},
			honest: []string{
				"arp.isannouncement && arp.src.proto_ipv4 == 192.0.2.20",
				"arp.isannouncement && arp.src.proto_ipv4 == 192.0.2.21",
				"arp.dst.proto_ipv4 == 192.0.2.9",
			},
		},
		{
			name: "trafgen by TX_RING", run: trafgen("", "--num", "1000", "--qdisc-path"),
			forged: []forgery{{"arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
			honest: []string{"arp.dst.proto_ipv4 == 192.0.2.9"},
		},
		{
			name: "trafgen by sendto", run: trafgen("", "--num", "100", "--qdisc-path", "--gap", "10us"),
			forged: []forgery{{"arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
			honest: []string{"arp.dst.proto_ipv4 == 192.0.2.9"},
		},
		// It takes ENOBUFS, which a bypass sender hears from the gate, for a reason to try
		// the same frame again, for ever.
		{
			name: "trafgen by TX_RING with PACKET_QDISC_BYPASS", run: trafgen(""), endless: true, flood: true,
			forged: []forgery{{"arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
		},
		{
			name: "trafgen by sendto with PACKET_QDISC_BYPASS", run: trafgen("", "--gap", "10us"), endless: true, flood: true,
			forged: []forgery{{"arp.src.proto_ipv4 == 192.0.2.77", "no-foreign-arp"}},
		},
	} {
		u.policy = node
		t.Run(u.name, u.try)
	}
}

// scapy runs a script of testdata with Debian's Python.
func scapy(script string, args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		labtest.Tool(t, "scapy", "python3-scapy")
		home := []string{"HOME=" + t.TempDir(), "PYTHONDONTWRITEBYTECODE=1"}
		return labtest.Start(t, p, labtest.Near, home, "/usr/bin/python3", append([]string{filepath.Join("testdata", script)}, args...)...)
	}
}

// arpFrame is what an ARP packet of the near end's looks like.
func arpFrame(t testing.TB, p *lab.Pair, opcode uint16, sender, target string) []byte {
	t.Helper()
	own := p.Ifi[labtest.Near].HardwareAddr
	b := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(b, gopacket.SerializeOptions{},
		&layers.Ethernet{SrcMAC: own, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP},
		&layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: opcode,
			SourceHwAddress: own, SourceProtAddress: net.ParseIP(sender).To4(), DstHwAddress: make([]byte, 6), DstProtAddress: net.ParseIP(target).To4(),
		}))
	return b.Bytes()
}

// tcpreplay replays a capture as fast as it can.
func tcpreplay(t testing.TB, p *lab.Pair) *labtest.Program {
	t.Helper()
	tool := labtest.Tool(t, "tcpreplay", "tcpreplay")
	name := filepath.Join(t.TempDir(), "mixed.pcap")
	f, err := os.Create(name)
	must(t, err)
	defer f.Close()
	w := pcapgo.NewWriter(f)
	must(t, w.WriteFileHeader(65536, layers.LinkTypeEthernet))
	for _, frame := range [][]byte{
		arpFrame(t, p, 1, "192.0.2.77", "192.0.2.77"),
		arpFrame(t, p, 1, "192.0.2.20", "192.0.2.20"),
		arpFrame(t, p, 2, "192.0.2.77", "192.0.2.1"),
		arpFrame(t, p, 1, "192.0.2.5", "192.0.2.9"),
		arpFrame(t, p, 1, "192.0.2.21", "192.0.2.21"),
	} {
		must(t, w.WritePacket(gopacket.CaptureInfo{CaptureLength: len(frame), Length: len(frame)}, frame))
	}
	must(t, f.Close())
	return labtest.Start(t, p, labtest.Near, nil, tool, "-i", "near", "--topspeed", name)
}

// trafgen sends a forged reply and an honest request in turns, in a cgroup if one is given.
func trafgen(cgroup string, args ...string) func(testing.TB, *lab.Pair) *labtest.Program {
	return func(t testing.TB, p *lab.Pair) *labtest.Program {
		t.Helper()
		var config []byte
		for _, frame := range [][]byte{arpFrame(t, p, 2, "192.0.2.77", "192.0.2.1"), arpFrame(t, p, 1, "192.0.2.5", "192.0.2.9")} {
			config = append(config, '{')
			for _, b := range frame {
				config = fmt.Appendf(config, "%d,", b)
			}
			config = append(config, "}\n"...)
		}
		name := labtest.Write(t, t.TempDir(), "trafgen.cfg", 0o600, string(config))
		// It would tune sysctls and interrupts of the machine.
		tool := labtest.Tool(t, "trafgen", "netsniff-ng")
		args := append([]string{tool, "--no-sock-mem", "--notouch-irq", "--cpus", "1", "--in", name, "--out", "near"}, args...)
		if cgroup != "" {
			args = append([]string{"sh", "-c", `echo 0 >"$0/cgroup.procs" && exec "$@"`, cgroup}, args...)
		}
		return labtest.Start(t, p, labtest.Near, nil, args[0], args[1:]...)
	}
}
