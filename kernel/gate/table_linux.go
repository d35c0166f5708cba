package gate

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes that golang.org/x/sys/unix does not name, from linux/netfilter/nf_tables.h.
const (
	nftaTableUserdata = 6
	nftaHookDevs      = 4
	nftaDeviceName    = 1
	nftaDevicePrefix  = 2
	nftTableDormant   = 1 // NFT_TABLE_F_DORMANT
)

// table is what the kernel has under the gate's name.
type table struct {
	exists  bool
	dormant bool // its chains are not hooked
	chains  []chain
}

// chain is a base chain of the gate's table, and its rules as describe says them.
type chain struct {
	name     string
	devices  []string // patterns with their "*"
	hook     uint32
	priority int32
	accepts  bool // its policy
	rules    []string
}

// find says whether the table is there, and its flags; or fails with an error that matches ErrForeign
// where it is not ours.
func (g Gate) find(c conn) (exists bool, flags uint32, err error) {
	var userdata []byte
	err = c.get(unix.NFT_MSG_GETTABLE, 0, func(ae *netlink.AttributeEncoder) { ae.String(unix.NFTA_TABLE_NAME, g.Name) },
		func(ad *netlink.AttributeDecoder) error {
			for ad.Next() {
				switch ad.Type() {
				case unix.NFTA_TABLE_FLAGS:
					flags = ad.Uint32()
				case nftaTableUserdata:
					userdata = ad.Bytes()
				}
			}
			return nil
		})
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, 0, nil
	case err != nil:
		return false, 0, fmt.Errorf("table netdev %s: %w", g.Name, err)
	case !isComment(userdata, g.Owner):
		return false, 0, fmt.Errorf("nft table netdev %s %w: it lacks the comment %q; delete or rename it, or give the gate another name",
			g.Name, ErrForeign, g.Owner)
	}
	return true, flags, nil
}

// read returns the table, or an error that matches ErrForeign where it is not ours.
func (g Gate) read(c conn) (t table, err error) {
	exists, flags, err := g.find(c)
	if err != nil || !exists {
		return table{}, err
	}
	t = table{exists: true, dormant: flags&nftTableDormant != 0}
	if err := c.get(unix.NFT_MSG_GETCHAIN, netlink.Dump, nil, t.addChain(g.Name)); err != nil {
		return table{}, fmt.Errorf("chains of table netdev %s: %w", g.Name, err)
	}
	for i := range t.chains {
		err := c.get(unix.NFT_MSG_GETRULE, netlink.Dump, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_RULE_TABLE, g.Name)
			ae.String(unix.NFTA_RULE_CHAIN, t.chains[i].name)
		}, t.chains[i].addRule)
		if err != nil {
			return table{}, fmt.Errorf("rules of chain %s: %w", t.chains[i].name, err)
		}
	}
	return t, nil
}

// addChain decodes a chain and keeps it if it is the table's: a dump has those of all tables.
func (t *table) addChain(tableName string) func(*netlink.AttributeDecoder) error {
	return func(ad *netlink.AttributeDecoder) error {
		var ch chain
		var in string
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_CHAIN_TABLE:
				in = ad.String()
			case unix.NFTA_CHAIN_NAME:
				ch.name = ad.String()
			case unix.NFTA_CHAIN_POLICY:
				ch.accepts = ad.Uint32() == nfAccept
			case unix.NFTA_CHAIN_HOOK:
				ad.Nested(ch.decodeHook)
			}
		}
		if in == tableName {
			t.chains = append(t.chains, ch)
		}
		return nil
	}
}

func (ch *chain) decodeHook(ad *netlink.AttributeDecoder) error {
	var one string
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			ch.hook = ad.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			ch.priority = int32(ad.Uint32())
		case unix.NFTA_HOOK_DEV:
			one = ad.String()
		case nftaHookDevs:
			ad.Nested(func(ad *netlink.AttributeDecoder) error {
				for ad.Next() {
					switch ad.Type() {
					case nftaDeviceName:
						ch.devices = append(ch.devices, ad.String())
					case nftaDevicePrefix:
						ch.devices = append(ch.devices, ad.String()+"*")
					}
				}
				return nil
			})
		}
	}
	if len(ch.devices) == 0 && one != "" {
		ch.devices = []string{one}
	}
	return nil
}

func (ch *chain) addRule(ad *netlink.AttributeDecoder) error {
	var text string
	var err error
	for ad.Next() {
		if ad.Type() == unix.NFTA_RULE_EXPRESSIONS {
			ad.Nested(func(ad *netlink.AttributeDecoder) error { text, err = describe(ad); return err })
		}
	}
	ch.rules = append(ch.rules, text)
	return err
}

// chainName is unique to device and priority, so that a chain of another priority can
// be made beside the old one, and a name that nft can read.
func chainName(d Device, priority int32) string {
	prefix, pattern := d.prefix()
	kind := "device"
	if pattern {
		kind = "prefix"
	}
	return fmt.Sprintf("egress-%s-%s-priority%d", kind, prefix, priority)
}

// is says whether the chain is hooked as ours for that device would be.
func (ch chain) is(d Device, priority int32) bool {
	return ch.hook == unix.NF_NETDEV_EGRESS && ch.priority == priority && ch.accepts &&
		len(ch.devices) == 1 && ch.devices[0] == d.Name
}

func (g Gate) newTable(b *batch) {
	b.add(purpose{"create table netdev " + g.Name, "nf_tables family netdev (CONFIG_NF_TABLES_NETDEV)",
		[]error{unix.EOPNOTSUPP, unix.EAFNOSUPPORT}}, unix.NFT_MSG_NEWTABLE, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, g.Name)
		ae.Uint32(unix.NFTA_TABLE_FLAGS, 0) // also wakes a dormant one
		ae.Bytes(nftaTableUserdata, comment(g.Owner))
	})
}

func (g Gate) newChain(b *batch, d Device, priority int32) {
	p := purpose{"hook at the egress of " + d.Name, "netfilter's egress hook (Linux 5.16, CONFIG_NETFILTER_EGRESS)", []error{unix.EOPNOTSUPP}}
	if _, ok := d.prefix(); ok {
		p.lack = "a hook for all devices of a prefix (Linux 6.17; name each device instead), or " + p.lack
		p.errnos = append(p.errnos, unix.EINVAL)
	}
	b.add(p, unix.NFT_MSG_NEWCHAIN, netlink.Create|netlink.Excl, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, g.Name)
		ae.String(unix.NFTA_CHAIN_NAME, chainName(d, priority))
		ae.Nested(unix.NFTA_CHAIN_HOOK, func(ae *netlink.AttributeEncoder) error {
			ae.Uint32(unix.NFTA_HOOK_HOOKNUM, unix.NF_NETDEV_EGRESS)
			ae.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
			if prefix, ok := d.prefix(); ok {
				ae.Nested(nftaHookDevs, func(ae *netlink.AttributeEncoder) error {
					ae.String(nftaDevicePrefix, prefix)
					return nil
				})
			} else {
				ae.String(unix.NFTA_HOOK_DEV, d.Name)
			}
			return nil
		})
		ae.String(unix.NFTA_CHAIN_TYPE, "filter")
		ae.Uint32(unix.NFTA_CHAIN_POLICY, nfAccept)
	})
}

func (g Gate) deleteChain(b *batch, name string) {
	b.add(purpose{what: "delete chain " + name}, unix.NFT_MSG_DELCHAIN, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, g.Name)
		ae.String(unix.NFTA_CHAIN_NAME, name)
	})
}

// deleteRules empties a chain.
func (g Gate) deleteRules(b *batch, chain string) {
	b.add(purpose{what: "empty chain " + chain}, unix.NFT_MSG_DELRULE, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, g.Name)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
	})
}

func (g Gate) newRule(b *batch, chain string, r rule) {
	p := purpose{fmt.Sprintf("rule %q in chain %s", r.text, chain), r.lack, []error{unix.EOPNOTSUPP, unix.ENOENT}}
	b.add(p, unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append,
		func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_RULE_TABLE, g.Name)
			ae.String(unix.NFTA_RULE_CHAIN, chain)
			r.encode(ae)
		})
}

func (g Gate) deleteTable(b *batch) {
	b.add(purpose{what: "delete table netdev " + g.Name}, unix.NFT_MSG_DELTABLE, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, g.Name)
	})
}
