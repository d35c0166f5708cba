package conformance

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/postern-fw/postern/firewall/filter"
)

// difference is a deliberate difference from Wireshark: an expression that refers
// to one of the fields may differ on a frame of which when is true. docs/wireshark.md
// or docs/language.md has a row of the same title that says why.
type difference struct {
	title  string
	fields string // protocols and fields, by spaces; "" for all
	when   func(r filter.Ref, p *filter.Packet) bool
}

var differences = []difference{
	{"Tunnels in IP", "ip ipv6 udp dhcp ptp ieee1722", func(_ filter.Ref, p *filter.Packet) bool {
		inner := func(proto uint8) bool { return proto == 4 || proto == 41 || proto == 51 }
		return p.HasIPv4 && inner(p.IPv4().Proto) || p.HasIPv6 && inner(p.IPv6().Proto)
	}},
	{"802.1ad", "vlan", func(_ filter.Ref, p *filter.Packet) bool { return hasTag(p, 0x88a8) }},
	{"802.1ah behind 802.1ad", "vlan ip udp eth", func(_ filter.Ref, p *filter.Packet) bool {
		tags := p.Frame().Tags()
		return len(tags) > 0 && tags[len(tags)-1].Type == 0x88e7
	}},
	{"IP version against the EtherType", "ip ipv6", func(_ filter.Ref, p *filter.Packet) bool {
		return p.HasIPv4 && len(p.IPv4().Header) == 1 || p.HasIPv6 && len(p.IPv6().Header) == 1
	}},
	{"ARP over ATM and AX.25", "arp", func(_ filter.Ref, p *filter.Packet) bool { return p.HasARP && p.ARP().HWType() == 19 }},
	{"BOOTP options without the cookie", "dhcp.option dhcp.hw dhcp.client_id", func(_ filter.Ref, p *filter.Packet) bool { return p.HasDHCP && !p.DHCP().HasCookie }},
	{"DHCP that a capture cut", "dhcp", func(_ filter.Ref, p *filter.Packet) bool {
		return p.HasUDP && p.Meta().WireLen > len(p.Bytes(filter.LayerFrame))
	}},
	{"A slice that is not there", "", func(r filter.Ref, p *filter.Packet) bool {
		return r.Slice != nil && !filter.Eval(&filter.Present{Field: r}, p, nil)
	}},
	{"A protocol's end", "", func(r filter.Ref, _ *filter.Packet) bool { return isFromEnd(r) }},
}

// isFromEnd tells a slice that is counted from the end of a protocol. A frame's
// end is no matter of opinion.
func isFromEnd(r filter.Ref) bool {
	return r.Field.Type == filter.TypeProtocol && r.Field.Name != "frame" && r.Slice != nil && r.Slice.Off < 0
}

func fromEnd(x filter.Expr) (found bool) {
	refs(x, func(r filter.Ref, _ filter.Expr) { found = found || isFromEnd(r) })
	return found
}

func hasTag(p *filter.Packet, tpids ...uint16) bool {
	for _, tag := range p.Frame().Tags() {
		if slices.Contains(tpids, tag.TPID) {
			return true
		}
	}
	return false
}

// excuse gives the title of the difference that covers the case, or "".
func excuse(x filter.Expr, p *filter.Packet) (title string) {
	refs(x, func(r filter.Ref, _ filter.Expr) {
		for _, d := range differences {
			if title == "" && d.covers(r.Field.Name) && d.when(r, p) {
				title = d.title
			}
		}
	})
	return title
}

func (d *difference) covers(field string) bool {
	for _, name := range strings.Fields(d.fields) {
		if field == name || strings.HasPrefix(field, name+".") {
			return true
		}
	}
	return d.fields == ""
}

func TestDifferencesAreDocumented(t *testing.T) {
	var docs []byte
	for _, name := range []string{"wireshark.md", "language.md"} {
		b, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, b...)
	}
	for _, d := range differences {
		if !strings.Contains(string(docs), "| "+d.title+" |") {
			t.Errorf("docs have no row %q", d.title)
		}
	}
}
