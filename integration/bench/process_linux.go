package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// judge is one way to decide on a frame in Go.
type judge struct {
	name   string
	accept func() bool
}

// side checks that the frame is accepted, as by all, and counts the allocations of that.
func (j judge) side() (*side, error) {
	if !j.accept() {
		return nil, fmt.Errorf("%s does not accept the frame", j.name)
	}
	allocs := testing.AllocsPerRun(100, func() { j.accept() })
	return &side{name: j.name, note: fmt.Sprintf("%.0f allocations", allocs), run: timedInAll(func(n int) error {
		for range n {
			j.accept()
		}
		return nil
	})}, nil
}

// postern decodes and classifies a frame by a policy.
func postern(policy string, frame []byte) (func() bool, error) {
	p, _, err := firewall.Parse("bench.yaml", []byte(policy))
	if err != nil {
		return nil, err
	}
	fw, err := firewall.New(p)
	if err != nil {
		return nil, err
	}
	var pkt filter.Packet
	meta := filter.Meta{Iface: "eth0"} // as a socket has it: made once
	return func() bool {
		pkt.Decode(frame, &meta)
		return fw.Classify(&pkt).Verdict == firewall.Accept
	}, nil
}

// judging compares postern with what a program would do instead, on one frame each of ARP and DHCP.
func judging(b *bench) error {
	// Long enough for several garbage collections in each turn of those who allocate.
	longer := course{20 * time.Millisecond, pick(b, 51, 11)}
	for _, x := range []struct {
		section
		policy string
		frame  []byte
		others []judge
	}{
		{section{ID: "judge-arp", Title: "Judging an ARP frame, in process"},
			"policy: p\nrules:\n  - {name: own, match: arp.opcode == 1 && arp.src.proto_ipv4 == 10.0.0.0 && arp.src.hw_mac == eth.src, verdict: accept}\n",
			ruleset(1).accepted(), arpJudges(ruleset(1).accepted())},
		{section{ID: "judge-dhcp", Title: "Judging a DHCP frame, in process"},
			"policy: p\nrules:\n  - {name: own, match: dhcp.option.dhcp == 1 && dhcp.hw.mac_addr == eth.src, verdict: accept}\n",
			broadcast(discover().ToBytes()), dhcpJudges(broadcast(discover().ToBytes()))},
	} {
		s := b.stage()
		accept, err := postern(x.policy, x.frame)
		if err != nil {
			return err
		}
		base, err := judge{"postern: Decode and Classify", accept}.side()
		if err != nil {
			return err
		}
		s.versus(base, base, 0)
		for _, j := range x.others {
			side, err := j.side()
			if err != nil {
				return err
			}
			s.versus(base, side, 0)
		}
		x.Text = "The same decision by other means. The ratio says how many times longer they take than postern. Time is what all threads had a CPU for, the garbage collector's as well."
		if err := s.measure(x.section, longer); err != nil {
			return err
		}
	}
	return nil
}

func arpJudges(frame []byte) []judge {
	byLayers := func(eth *layers.Ethernet, arp *layers.ARP) bool {
		return arp.Operation == layers.ARPRequest && bytes.Equal(arp.SourceProtAddress, []byte{10, 0, 0, 0}) && bytes.Equal(arp.SourceHwAddress, eth.SrcMAC)
	}
	var eth layers.Ethernet
	var arp layers.ARP
	parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &arp)
	parser.IgnoreUnsupported = true
	var decoded []gopacket.LayerType
	vm := classicARP()
	return []judge{
		{"gopacket, NewPacket, and ifs", func() bool {
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
			eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
			arp, _ := p.Layer(layers.LayerTypeARP).(*layers.ARP)
			return eth != nil && arp != nil && byLayers(eth, arp)
		}},
		{"gopacket, DecodingLayerParser, and ifs", func() bool {
			err := parser.DecodeLayers(frame, &decoded)
			return err == nil && len(decoded) >= 2 && decoded[1] == layers.LayerTypeARP && byLayers(&eth, &arp)
		}},
		{"classic BPF, x/net/bpf's VM", func() bool {
			n, err := vm.Run(frame)
			return err == nil && n > 0
		}},
		{"ifs on bytes: no tags, no LLC, no limits, no counters", func() bool {
			return len(frame) >= 42 && binary.BigEndian.Uint16(frame[12:]) == 0x0806 && binary.BigEndian.Uint64(frame[14:]) == 0x0001_0800_0604_0001 &&
				binary.BigEndian.Uint32(frame[28:]) == 0x0a000000 && bytes.Equal(frame[22:28], frame[6:12])
		}},
	}
}

// classicARP is the decision as classic BPF, which compares two fields by way of the scratch memory.
func classicARP() *bpf.VM {
	vm, err := bpf.NewVM([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0806, SkipTrue: 15},
		bpf.LoadAbsolute{Off: 20, Size: 2}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 1, SkipTrue: 13},
		bpf.LoadAbsolute{Off: 28, Size: 4}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0a000000, SkipTrue: 11},
		bpf.LoadAbsolute{Off: 6, Size: 4}, bpf.TAX{}, bpf.LoadAbsolute{Off: 22, Size: 4}, bpf.ALUOpX{Op: bpf.ALUOpSub}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 10, Size: 2}, bpf.TAX{}, bpf.LoadAbsolute{Off: 26, Size: 2}, bpf.ALUOpX{Op: bpf.ALUOpSub}, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 18}, bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err)
	}
	return vm
}

func dhcpJudges(frame []byte) []judge {
	var eth layers.Ethernet
	var ip layers.IPv4
	var udp layers.UDP
	var dhcp layers.DHCPv4
	parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &ip, &udp, &dhcp)
	parser.IgnoreUnsupported = true
	var decoded []gopacket.LayerType
	byLayers := func(eth *layers.Ethernet, dhcp *layers.DHCPv4) bool {
		for _, o := range dhcp.Options {
			if o.Type == layers.DHCPOptMessageType {
				return len(o.Data) == 1 && o.Data[0] == 1 && bytes.Equal(dhcp.ClientHWAddr, eth.SrcMAC)
			}
		}
		return false
	}
	return []judge{
		{"insomniacslk/dhcp, FromBytes of the payload alone, and ifs", func() bool {
			m, err := dhcpv4.FromBytes(frame[42:])
			return err == nil && m.MessageType() == dhcpv4.MessageTypeDiscover && bytes.Equal(m.ClientHWAddr, frame[6:12])
		}},
		{"gopacket, NewPacket, and ifs", func() bool {
			p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
			eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
			dhcp, _ := p.Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4)
			return eth != nil && dhcp != nil && byLayers(eth, dhcp)
		}},
		{"gopacket, DecodingLayerParser, and ifs", func() bool {
			err := parser.DecodeLayers(frame, &decoded)
			return err == nil && len(decoded) == 4 && decoded[3] == layers.LayerTypeDHCPv4 && byLayers(&eth, &dhcp)
		}},
	}
}

// judgingMany is how Classify grows with the rules, compared with 10 of one shape.
func judgingMany(b *bench) error {
	s := b.stage()
	make := func(shapes int, n ruleset) (*side, error) {
		accept, err := postern(n.shaped(shapes, "tc", "eth0"), n.acceptedOf(shapes))
		if err != nil {
			return nil, err
		}
		return judge{shapesName(shapes), accept}.side()
	}
	base, err := make(1, 10)
	if err != nil {
		return err
	}
	for _, shapes := range []int{1, 4, 16} {
		for _, n := range b.counts() {
			if int(n) < shapes {
				continue
			}
			side, err := make(shapes, n)
			if err != nil {
				return err
			}
			s.versus(base, side, int(n))
		}
	}
	return s.measure(section{
		ID: "judge-rules", Title: "Judging by many rules, in process", Axis: "rules",
		Text: "An ARP frame, which the last rule accepts. Rules of one shape compare the same bits of the same fields. Compared with 10 rules of one shape.",
	}, b.course())
}
