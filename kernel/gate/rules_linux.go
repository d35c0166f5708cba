package gate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// expr is an expression of nf_tables: its name and its attributes.
type expr struct {
	name  string
	attrs func(*netlink.AttributeEncoder)
}

// rule is what the kernel is told, and how nft would say it.
type rule struct {
	text    string
	comment string
	lack    string // what a kernel lacks that refuses it
	exprs   []expr
}

// rules returns the rules of a device's chain.
func rules(d Device, inspection int, name string) []rule {
	var list []rule
	if d.matches(name) {
		// A pattern that covers the inspection device would lead its frames to itself, for ever.
		list = append(list, rule{
			text:    fmt.Sprintf("meta oif == %d accept", inspection),
			comment: "the inspection device itself",
			lack:    "meta oif",
			exprs:   []expr{meta(unix.NFT_META_OIF), cmp(unix.NFT_CMP_EQ, uint32(inspection)), accept()},
		})
	}
	if d.Senders == PacketSockets {
		// The load fails, and so the rule does not match, where there is no route (nft_meta_get_eval).
		list = append(list, rule{
			text:    "meta rtclassid >= 0 accept",
			comment: "has a route: the IP stack's own",
			lack:    "meta rtclassid (CONFIG_IP_ROUTE_CLASSID)",
			exprs:   []expr{meta(unix.NFT_META_RTCLASSID), cmp(unix.NFT_CMP_GTE, 0), accept()},
		})
	}
	return append(list, rule{
		text:    fmt.Sprintf("fwd to %d", inspection),
		comment: "to be inspected",
		lack:    "fwd at egress (Linux 5.17, CONFIG_NFT_FWD_NETDEV)",
		exprs:   []expr{immediate(uint32(inspection)), fwd()},
	})
}

func meta(key uint32) expr {
	return expr{"meta", func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NFTA_META_DREG, unix.NFT_REG_1)
		ae.Uint32(unix.NFTA_META_KEY, key)
	}}
}

func cmp(op, value uint32) expr {
	return expr{"cmp", func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		ae.Uint32(unix.NFTA_CMP_OP, op)
		ae.Nested(unix.NFTA_CMP_DATA, hostOrder(value))
	}}
}

func immediate(value uint32) expr {
	return expr{"immediate", func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_1)
		ae.Nested(unix.NFTA_IMMEDIATE_DATA, hostOrder(value))
	}}
}

func accept() expr {
	return expr{"immediate", func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		ae.Nested(unix.NFTA_IMMEDIATE_DATA, func(ae *netlink.AttributeEncoder) error {
			ae.Nested(unix.NFTA_DATA_VERDICT, func(ae *netlink.AttributeEncoder) error {
				ae.Uint32(unix.NFTA_VERDICT_CODE, nfAccept)
				return nil
			})
			return nil
		})
	}}
}

func fwd() expr {
	return expr{"fwd", func(ae *netlink.AttributeEncoder) { ae.Uint32(unix.NFTA_FWD_SREG_DEV, unix.NFT_REG_1) }}
}

// hostOrder is a register's value: what meta loads is in the host's byte order.
func hostOrder(value uint32) func(*netlink.AttributeEncoder) error {
	return func(ae *netlink.AttributeEncoder) error {
		ae.Bytes(unix.NFTA_DATA_VALUE, binary.NativeEndian.AppendUint32(nil, value))
		return nil
	}
}

// nfAccept is NF_ACCEPT of linux/netfilter.h.
const nfAccept = 1

func (r rule) encode(ae *netlink.AttributeEncoder) {
	ae.Nested(unix.NFTA_RULE_EXPRESSIONS, func(ae *netlink.AttributeEncoder) error {
		for _, e := range r.exprs {
			ae.Nested(unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) error {
				ae.String(unix.NFTA_EXPR_NAME, e.name)
				ae.Nested(unix.NFTA_EXPR_DATA, func(ae *netlink.AttributeEncoder) error { e.attrs(ae); return nil })
				return nil
			})
		}
		return nil
	})
	ae.Bytes(unix.NFTA_RULE_USERDATA, comment(r.comment))
}

// comment is user data as libnftnl lays it out and nft prints it: the type
// NFTNL_UDATA_RULE_COMMENT or _TABLE_COMMENT (both 0), the length, the text and a NUL.
func comment(text string) []byte {
	return append([]byte{0, byte(len(text) + 1)}, text+"\x00"...)
}

// isComment says whether user data is that comment.
func isComment(userdata []byte, text string) bool {
	for len(userdata) >= 2 && len(userdata) >= 2+int(userdata[1]) {
		if n := 2 + int(userdata[1]); userdata[0] != 0 {
			userdata = userdata[n:]
			continue
		}
		return bytes.Equal(userdata[:2+int(userdata[1])], comment(text))
	}
	return false
}

// describe says in nft's words what a rule's expressions do; rule.text is what ours give.
func describe(ad *netlink.AttributeDecoder) (string, error) {
	var words []string
	for ad.Next() {
		ad.Nested(func(ad *netlink.AttributeDecoder) error {
			var name string
			for ad.Next() {
				switch ad.Type() {
				case unix.NFTA_EXPR_NAME:
					name = ad.String()
				case unix.NFTA_EXPR_DATA:
					ad.Nested(func(ad *netlink.AttributeDecoder) error {
						words = append(words, describeExpr(name, ad))
						return nil
					})
				}
			}
			return nil
		})
	}
	return resolve(words), ad.Err()
}

// resolve puts the number that was loaded into a register behind the word that uses it.
func resolve(words []string) string {
	var out []string
	for _, w := range words {
		if w == "fwd to" && len(out) > 0 {
			out[len(out)-1] = "fwd to " + strings.TrimPrefix(out[len(out)-1], "immediate ")
			continue
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

func describeExpr(name string, ad *netlink.AttributeDecoder) string {
	var number, op, value, verdict uint32
	for ad.Next() {
		switch {
		case name == "meta" && ad.Type() == unix.NFTA_META_KEY:
			number = ad.Uint32()
		case name == "cmp" && ad.Type() == unix.NFTA_CMP_OP:
			op = ad.Uint32()
		case name == "cmp" && ad.Type() == unix.NFTA_CMP_DATA,
			name == "immediate" && ad.Type() == unix.NFTA_IMMEDIATE_DATA:
			ad.Nested(func(ad *netlink.AttributeDecoder) error { value, verdict = data(ad); return nil })
		case name == "immediate" && ad.Type() == unix.NFTA_IMMEDIATE_DREG:
			number = ad.Uint32()
		}
	}
	switch {
	case name == "meta":
		return "meta " + word(number, map[uint32]string{unix.NFT_META_OIF: "oif", unix.NFT_META_RTCLASSID: "rtclassid"})
	case name == "cmp":
		return word(op, map[uint32]string{unix.NFT_CMP_EQ: "==", unix.NFT_CMP_GTE: ">="}) + fmt.Sprintf(" %d", value)
	case name == "immediate" && number == unix.NFT_REG_VERDICT:
		return word(verdict, map[uint32]string{nfAccept: "accept"})
	case name == "immediate":
		return fmt.Sprintf("immediate %d", value)
	case name == "fwd":
		return "fwd to"
	}
	return name
}

// word names a number, or quotes one that our rules never have.
func word(n uint32, names map[uint32]string) string {
	if w, ok := names[n]; ok {
		return w
	}
	return fmt.Sprintf("#%d", n)
}

func data(ad *netlink.AttributeDecoder) (value, verdict uint32) {
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_DATA_VALUE:
			if b := ad.Bytes(); len(b) == 4 {
				value = binary.NativeEndian.Uint32(b)
			}
		case unix.NFTA_DATA_VERDICT:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					if ad.Type() == unix.NFTA_VERDICT_CODE {
						verdict = ad.Uint32()
					}
				}
				return nil
			})
		}
	}
	return value, verdict
}
