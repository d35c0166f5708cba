package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// ruleset is n rules that each accept the ARP packets of one sender address; whatever else
// is refused. All contenders are given the same.
type ruleset int

func (r ruleset) String() string {
	if r == 1 {
		return "1 rule"
	}
	return thousands(int(r)) + " rules"
}

// address is the one of rule i.
func (ruleset) address(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// accepted is an announcement that only the last rule accepts, refused one that none does.
func (r ruleset) accepted() []byte { return announcement(r.address(int(r) - 1)) }
func (r ruleset) refused() []byte  { return announcement(netip.AddrFrom4([4]byte{192, 0, 2, 1})) }

var ownMAC = []byte{2, 0, 0, 0, 0, 1}

// announcement is an ARP announcement (RFC 5227) in an Ethernet frame of the least size.
func announcement(a netip.Addr) []byte {
	b := make([]byte, 60)
	copy(b, "\xff\xff\xff\xff\xff\xff")
	copy(b[6:], ownMAC)
	copy(b[12:], "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01")
	copy(b[22:], ownMAC)
	copy(b[28:], a.AsSlice())
	copy(b[38:], a.AsSlice())
	return b
}

// postern is the policy for a device, with the hook as it says.
func (r ruleset) postern(hook, dev string) string { return r.shaped(1, hook, dev) }

// shaped is the policy with its rules in several shapes: prefixes of different lengths of the
// address. The last rule is of the last shape.
func (r ruleset) shaped(shapes int, hook, dev string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "policy: bench\nhook: %s\nguard: [{interfaces: [%s]}]\nrules:\n", hook, dev)
	for i := range int(r) {
		fmt.Fprintf(&b, "  - {name: r%d, match: arp.src.proto_ipv4 == %s, verdict: accept}\n", i, r.prefix(i, shapes))
	}
	return b.String()
}

// prefix is the one of rule i: a /32, or one that is shorter, and for each shape of another length. They do
// not overlap.
func (r ruleset) prefix(i, shapes int) string {
	if shapes == 1 {
		return r.address(i).String()
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x40<<24|uint32(i)<<(shapes-1))
	return fmt.Sprintf("%s/%d", netip.AddrFrom4(a), 32-i%shapes)
}

// acceptedOf is accepted, for rules in shapes.
func (r ruleset) acceptedOf(shapes int) []byte {
	a, _, _ := strings.Cut(r.prefix(int(r)-1, shapes), "/")
	return announcement(netip.MustParseAddr(a))
}

func shapesName(n int) string {
	if n == 1 {
		return "1 shape"
	}
	return fmt.Sprint(n, " shapes")
}

// chain is a netdev egress chain for nft with these rules.
func chain(rules ...string) string {
	return fmt.Sprintf("table netdev bench {\n chain egress {\n  type filter hook egress device sink priority 0; policy drop;\n  %s\n }\n}\n", strings.Join(rules, "\n  "))
}

// emptyChain accepts by its policy.
const emptyChain = "table netdev bench { chain egress { type filter hook egress device sink priority 0; policy accept;\n }\n}\n"

// nftLinear is a rule for each address.
func (r ruleset) nftLinear() string {
	rules := make([]string, r)
	for i := range rules {
		rules[i] = fmt.Sprintf("arp saddr ip %s accept", r.address(i))
	}
	return chain(rules...)
}

// nftSet is one rule with a set, nftMap one with a verdict map.
func (r ruleset) nftSet() string { return chain("arp saddr ip {" + r.list("") + "} accept") }
func (r ruleset) nftMap() string { return chain("arp saddr ip vmap {" + r.list(" : accept") + "}") }

func (r ruleset) list(suffix string) string {
	list := make([]string, r)
	for i := range list {
		list[i] = r.address(i).String() + suffix
	}
	return strings.Join(list, ", ")
}

// classic is a classic BPF program for tc's direct action, as tc reads it: its length and then
// instructions. There is room for 2,047 rules (BPF_MAXINSNS).
func (r ruleset) classic() string {
	const ldh, ld, jeq, ret = 0x28, 0x20, 0x15, 0x06
	const ok, shot = 0, 2 // TC_ACT_OK, TC_ACT_SHOT
	ins := []string{
		fmt.Sprintf("%d 0 0 12", ldh), fmt.Sprintf("%d 1 0 %d", jeq, 0x0806), fmt.Sprintf("%d 0 0 %d", ret, shot),
		fmt.Sprintf("%d 0 0 28", ld),
	}
	for i := range int(r) {
		a := r.address(i).As4()
		ins = append(ins, fmt.Sprintf("%d 0 1 %d", jeq, uint32(a[0])<<24|uint32(a[1])<<16|uint32(a[2])<<8|uint32(a[3])), fmt.Sprintf("%d 0 0 %d", ret, ok))
	}
	ins = append(ins, fmt.Sprintf("%d 0 0 %d", ret, shot))
	return fmt.Sprintf("%d,%s", len(ins), strings.Join(ins, ","))
}
