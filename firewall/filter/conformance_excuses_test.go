package filter

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-fw/postern/proto/dhcp"
	"github.com/postern-fw/postern/proto/frame"
)

// difference is a deliberate difference from Wireshark. docs/wireshark.md has a
// row of the same title that says why.
type difference struct {
	title  string
	fields string // prefixes, by spaces
	when   func(p *Packet, ours, theirs []string) bool
}

var differences = []difference{
	{"Tunnels in IP", "eth vlan llc arp ip ipv6 udp dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return (p.HasIPv4 && p.IPv4().Proto != 17 || p.HasIPv6 && p.IPv6().Proto != 17) && subset(ours, theirs)
	}},
	{"802.1ad", "vlan", func(p *Packet, ours, theirs []string) bool {
		return hasTag(p, 0x88a8) && subset(theirs, ours)
	}},
	{"802.3 length behind 802.1ad", "llc arp ip ipv6 udp dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return hasTag(p, 0x88a8) && p.Frame().Is8023 && theirs == nil
	}},
	{"Tags 0x9200 and 0x9300", "vlan llc arp ip ipv6 udp dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return hasTag(p, 0x9200, 0x9300) && subset(theirs, ours)
	}},
	{"IPv4 total length 0", "ip.len", func(p *Packet, ours, theirs []string) bool {
		return p.HasIPv4 && p.IPv4().TotalLen == 0
	}},
	{"802.1ah behind 802.1ad", "vlan ip udp tcp eth", func(p *Packet, ours, theirs []string) bool {
		tags := p.Frame().Tags()
		return len(tags) > 0 && tags[len(tags)-1].Type == 0x88e7
	}},
	{"IP version against the EtherType", "ip ipv6", func(p *Packet, ours, theirs []string) bool {
		return p.HasIPv4 && len(p.IPv4().Header) == 1 || p.HasIPv6 && len(p.IPv6().Header) == 1
	}},
	{"ARP over ATM and AX.25", "arp", func(p *Packet, ours, theirs []string) bool {
		return p.HasARP && (p.ARP().HWType() == 3 || p.ARP().HWType() == 19)
	}},
	{"ARP that a capture cut", "arp", func(p *Packet, ours, theirs []string) bool {
		return cut(p) && p.HasARP && subset(ours, theirs)
	}},
	{"DHCP that a capture cut", "dhcp", func(p *Packet, ours, theirs []string) bool {
		return cut(p) && p.HasUDP && p.DHCP().Malformed != dhcp.CauseNone
	}},
	{"A lower port of another protocol", "dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return p.HasUDP && min(p.UDP().SrcPort, p.UDP().DstPort) < 67 && theirs == nil
	}},
	{"DHCP hardware address length", "dhcp", func(p *Packet, ours, theirs []string) bool {
		return p.HasDHCP && int(p.DHCP().HLen()) > 16 && theirs == nil
	}},
	{"LLC group, response and poll bits", "llc vlan arp ip ipv6 udp dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		llc := p.Bytes(LayerLLC)
		return len(llc) >= 3 && (llc[0]&1 != 0 || llc[1]&1 != 0 || llc[2] != 3 && llc[2]&1 != 0) && subset(theirs, ours)
	}},
	{"A second LLC header", "llc arp ip ipv6 udp dhcp", func(p *Packet, ours, theirs []string) bool {
		return p.Frame().Malformed == frame.CauseNestedLength
	}},
	{"IPv4 options", "ip.dst ip.addr udp dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return p.HasIPv4 && p.IPv4().HdrLen > 20 && subset(theirs, ours)
	}},
	{"Options across the end of sname or file", "dhcp.option", func(p *Packet, ours, theirs []string) bool {
		return p.HasDHCP && p.DHCP().Overload != 0 && p.DHCP().Malformed != dhcp.CauseNone
	}},
	{"UDP length 0 over IPv6", "dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return p.HasIPv6 && p.HasUDP && p.UDP().Length == 0 && ours == nil
	}},
	{"IPv6 extension headers", "udp dhcp ptp ieee1722", func(p *Packet, ours, theirs []string) bool {
		return p.HasIPv6 && p.IPv6().NextHdr != p.IPv6().Proto && theirs == nil
	}},
	{"PTP message length", "ptp", func(p *Packet, ours, theirs []string) bool {
		b := p.Bytes(LayerPTP)
		return b != nil && wireNumber(b[2:4]) < 34 && theirs == nil
	}},
	{"BOOTP options without the cookie", "dhcp.option dhcp.hw dhcp.client_id", func(p *Packet, ours, theirs []string) bool {
		return p.HasDHCP && !p.DHCP().HasCookie && subset(ours, theirs)
	}},
}

// excuse gives the title of the difference that covers the case, or "".
func excuse(f *Field, p *Packet, ours, theirs []string) string {
	for _, d := range differences {
		for prefix := range strings.FieldsSeq(d.fields) {
			if (f.Name == prefix || strings.HasPrefix(f.Name, prefix+".")) && d.when(p, ours, theirs) {
				return d.title
			}
		}
	}
	return ""
}

// cut reports whether a capture kept only a part of the frame.
func cut(p *Packet) bool { return p.Meta().WireLen > len(p.b) }

// subset reports whether b, sorted, has all that a has.
func subset(a, b []string) bool {
	rest := slices.Clone(b)
	for _, s := range a {
		i := slices.Index(rest, s)
		if i < 0 {
			return false
		}
		rest = slices.Delete(rest, i, i+1)
	}
	return true
}

func hasTag(p *Packet, tpids ...uint16) bool {
	return slices.ContainsFunc(p.Frame().Tags(), func(t frame.Tag) bool { return slices.Contains(tpids, t.TPID) })
}

func TestDifferencesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/wireshark.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		if !strings.Contains(string(doc), "| "+d.title+" |") {
			t.Errorf("docs/wireshark.md has no row %q", d.title)
		}
	}
}
