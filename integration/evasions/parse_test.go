package evasions

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

// TestBuildersByGopacket holds what the builders make against an independent
// parser, every field with a value of its own.
func TestBuildersByGopacket(t *testing.T) {
	h := NewHost()
	a := newARP(arpReply, h.MAC, h.IP, h.PeerMAC, h.PeerIP)
	p := gopacket.NewPacket(a.link().tag(tpidQ, 5<<13|VLAN).frame(broadcast, h.VirtualMAC), layers.LayerTypeEthernet, gopacket.Default)
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	vlan := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q)
	got := p.Layer(layers.LayerTypeARP).(*layers.ARP)
	equal(t, "Ethernet", fmt.Sprint(eth.SrcMAC, eth.DstMAC, eth.EthernetType), fmt.Sprint(h.VirtualMAC, broadcast, layers.EthernetTypeDot1Q))
	equal(t, "tag", []any{vlan.Priority, vlan.VLANIdentifier, vlan.Type}, []any{uint8(5), uint16(VLAN), layers.EthernetTypeARP})
	equal(t, "ARP", cat(got.SourceHwAddress, got.SourceProtAddress, got.DstHwAddress, got.DstProtAddress),
		cat(h.MAC[:], h.IP.AsSlice(), h.PeerMAC[:], h.PeerIP.AsSlice()))
	equal(t, "ARP header", []any{got.AddrType, got.Protocol, got.HwAddressSize, got.ProtAddressSize, got.Operation},
		[]any{layers.LinkTypeEthernet, layers.EthernetTypeIPv4, uint8(6), uint8(4), uint16(2)})

	ip := udp{srcPort: 1111, dstPort: 2222, payload: []byte("payload")}.in(h.IP, h.PeerIP)
	ip.options = []byte{0x94, 4, 0, 0, 1, 1, 1, 0}
	p = gopacket.NewPacket(ip.link().snap(ouiEtherType).frame(h.PeerMAC, h.MAC), layers.LayerTypeEthernet, gopacket.Default)
	v4, u := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4), p.Layer(layers.LayerTypeUDP).(*layers.UDP)
	equal(t, "IPv4", []any{v4.IHL, v4.Length, v4.Protocol, v4.SrcIP.String(), v4.DstIP.String(), len(v4.Options)},
		[]any{uint8(7), uint16(28 + 15), layers.IPProtocolUDP, h.IP.String(), h.PeerIP.String(), 5})
	equal(t, "UDP", []any{u.SrcPort, u.DstPort, u.Length, string(u.Payload)},
		[]any{layers.UDPPort(1111), layers.UDPPort(2222), uint16(15), "payload"})
	equal(t, "SNAP", p.Layer(layers.LayerTypeSNAP).(*layers.SNAP).OrganizationalCode, []byte{0, 0, 0})
}

// TestBuildersByDHCP does the same for a DHCP message.
func TestBuildersByDHCP(t *testing.T) {
	h := NewHost()
	m := newReply(h.Guest, h.OtherServer, ack, address(optServerID, h.Server), address(optMask, h.IP),
		option(optLeaseTime, 0, 0, 14, 16), clientID(h.Guest), circuit(h))
	m.client, m.relay, m.hops = h.VIP, h.OtherRelay, 3
	m.sname, m.file = []byte("server"), []byte("file")
	got, err := dhcpv4.FromBytes(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "fixed part", fmt.Sprint(got.OpCode, got.HWType, got.HopCount, got.ClientIPAddr, got.YourIPAddr, got.ServerIPAddr, got.GatewayIPAddr,
		got.ClientHWAddr)+got.ServerHostName+got.BootFileName,
		fmt.Sprint("BootReply Ethernet 3 ", h.VIP, " ", h.OtherServer, " ", anyAddress, " ", h.OtherRelay, " ", h.Guest)+"serverfile")
	equal(t, "options", fmt.Sprint(got.MessageType(), got.ServerIdentifier(), got.IPAddressLeaseTime(0), got.Options.Get(dhcpv4.OptionClientIdentifier)),
		fmt.Sprint("ACK ", h.Server, " ", time.Hour, " ", cat([]byte{1}, h.Guest[:])))
	equal(t, "link selection", got.RelayAgentInfo().Get(dhcpv4.LinkSelectionSubOption), h.Link.Masked().Addr().AsSlice())
	for _, f := range hiding(newReply(h.Guest, h.OtherServer, offer)) {
		if f.file != nil || f.sname != nil {
			continue // which that library does not read
		}
		if got, err := dhcpv4.FromBytes(f.message.bytes()); err != nil || got.MessageType() != dhcpv4.MessageTypeOffer {
			t.Errorf("%s: %v, %v", f.name, got, err)
		}
	}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

// TestHonestByTshark: an honest twin is beyond doubt, as far as tshark can tell; and
// the checksums of forged frames are wrong in their own row alone.
func TestHonestByTshark(t *testing.T) {
	// Warnings and worse, but not that a virtual address has two owners in one file.
	const bad = "_ws.malformed || _ws.expert.severity >= 6291456 && !arp.duplicate-address-detected"
	const sums = "ip.checksum.status == 0 || udp.checksum.status == 0"
	var honest, forged, offers, split [][]byte
	var wrong, wantWrong int
	for _, c := range Cases(NewHost()) {
		if c.Row == "option 53 twice, or not one byte" { // the twin's option 121 is in two, which tshark does not join
			split = append(split, c.Honest.Bytes)
		} else {
			honest = append(honest, c.Honest.Bytes)
		}
		switch {
		case c.Row == "checksums":
			wrong++
			if c.Name != "right" && c.Name != "0 in UDP" {
				wantWrong++
			}
			offers = append(offers, c.Forged.Bytes)
		case c.Row != "UDP and IP lengths" && c.Row != "IPv4 options": // IHL 0 moves the checksum
			forged = append(forged, c.Forged.Bytes)
		}
	}
	if got := matching(t, honest, bad+" || "+sums); len(got) > 0 {
		t.Errorf("tshark finds fault with honest frames %v", got)
	}
	if got := matching(t, split, "dhcp.option.dhcp == 5 && !("+sums+")"); len(got) != len(split) {
		t.Errorf("tshark reads the ACK in %v of %d", got, len(split))
	}
	if got := matching(t, honest, "arp || ip || stp || lldp"); len(got) != len(honest) {
		t.Errorf("tshark reads %d of %d honest frames", len(got), len(honest))
	}
	if got := matching(t, forged, sums); len(got) > 0 {
		t.Errorf("tshark finds wrong checksums in forged frames %v", got)
	}
	if got := matching(t, offers, sums); len(got) != wantWrong || wrong != 7 {
		t.Errorf("tshark finds wrong checksums in %v of %d, want %d", got, wrong, wantWrong)
	}
	if got := matching(t, offers, "dhcp.option.dhcp == 2"); len(got) != len(offers) {
		t.Errorf("tshark reads the OFFER in %v of %d", got, len(offers))
	}
}

// TestForgedByTshark: what the forged frames are taken for, tshark sees as well, but
// where its manners are better than some receivers' (docs/wireshark.md).
func TestForgedByTshark(t *testing.T) {
	for rule, attack := range map[string]string{
		"no-server-message":     "dhcp.option.dhcp in {2, 5, 6, 9, 11..13}",
		"no-false-announcement": "arp.isgratuitous",
		"no-hostile-probe":      "arp.src.proto_ipv4 == 0.0.0.0",
		"no-odd-opcode":         "arp && !(arp.opcode in {1, 2})",
		"no-foreign-server":     "dhcp.option.dhcp_server_id < 192.0.2.2 || dhcp.option.dhcp_server_id > 192.0.2.2",
		"no-foreign-chaddr":     "dhcp",
		"no-fragment":           "ip.flags.mf == 1 || ip.frag_offset > 0",
		"no-stray-tag":          "vlan || ieee8021ad",
	} {
		var frames [][]byte
		var names []string
		for _, c := range Cases(NewHost()) {
			excused := c.Row == "LLC and tags" && !strings.Contains(c.Name, "tag") || strings.HasSuffix(c.Name, "from port 53")
			if c.Forged.Rule == rule && !excused {
				frames, names = append(frames, c.Forged.Bytes), append(names, c.String())
			}
		}
		seen := map[int]bool{}
		for _, n := range matching(t, frames, attack) {
			seen[n] = true
		}
		for i, name := range names {
			if !seen[i] {
				t.Errorf("%s: tshark does not see %s\n%x", name, attack, frames[i])
			}
		}
		if len(names) == 0 {
			t.Errorf("%s refuses nothing", rule)
		}
	}
}

// matching are the numbers, from 0, of the frames that a display filter matches.
func matching(t *testing.T, frames [][]byte, filter string) (out []int) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs the tool tshark")
		}
		t.Skip("needs the tool tshark")
	}
	name := filepath.Join(t.TempDir(), "frames.pcap")
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(262144, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for i, b := range frames {
		// A day apart, so that none looks like another's sequel.
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i)*86400, 0), CaptureLength: len(b), Length: len(b)}
		if err := w.WritePacket(info, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tshark", "-n", "-r", name, "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-o", "ip.defragment:FALSE", "-Y", filter, "-T", "fields", "-e", "frame.number")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var n int
		if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
			t.Fatal(err)
		}
		out = append(out, n-1)
	}
	return out
}
