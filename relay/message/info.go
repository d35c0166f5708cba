package message

import (
	"encoding/binary"

	"github.com/postern-fw/postern/proto/dhcp"
)

// Sub-options of option 82.
const (
	SubCircuitID     = 1  // RFC 3046
	SubRemoteID      = 2  // RFC 3046
	SubLinkSelection = 5  // RFC 3527
	SubFlags         = 10 // RFC 5010
	SubServerID      = 11 // RFC 5107
)

// HasSub reports whether an option 82 has a sub-option with this data.
func HasSub(info []byte, code byte, data string) bool {
	for it := dhcp.NewSuboptions(info); it.Next(); {
		if it.Code == code && string(it.Data) == data {
			return true
		}
	}
	return false
}

// AppendAddress appends a sub-option that is an IPv4 address.
func AppendAddress(dst []byte, code byte, ip uint32) []byte {
	return binary.BigEndian.AppendUint32(append(dst, code, 4), ip)
}

// AppendFlags appends the flags sub-option: whether the message came by unicast.
func AppendFlags(dst []byte, unicast bool) []byte {
	flags := byte(0)
	if unicast {
		flags = 0x80
	}
	return append(dst, SubFlags, 1, flags)
}

// Address reads an option of four bytes, 0 if there is none.
func Address(m *dhcp.Message, code byte) uint32 {
	if !m.Has(code) {
		return 0
	}
	for it := m.Options(); it.Next(); {
		if it.Code == code && len(it.Data) == 4 {
			return binary.BigEndian.Uint32(it.Data)
		}
	}
	return 0
}

// Option is an option's data where it stands first; nil if it is nowhere.
func Option(m *dhcp.Message, code byte) []byte {
	if !m.Has(code) {
		return nil
	}
	for it := m.Options(); it.Next(); {
		if it.Code == code {
			return it.Data
		}
	}
	return nil
}
