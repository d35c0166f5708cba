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

// Info is what the agent's own sub-options say.
type Info struct {
	// At is where they begin: at the last circuit ID.
	At int
	// Circuit and Remote are nil where they are missing.
	Circuit, Remote []byte
}

// Decode reads the sub-options of an option 82. It is false if they run past the end or
// have no circuit ID.
func (i *Info) Decode(b []byte) bool {
	*i = Info{}
	at, it := 0, dhcp.NewSuboptions(b)
	for it.Next() {
		switch it.Code {
		case SubCircuitID:
			i.At, i.Circuit, i.Remote = at, it.Data, nil
		case SubRemoteID:
			i.Remote = it.Data
		}
		at += 2 + len(it.Data)
	}
	return it.Malformed == dhcp.CauseNone && i.Circuit != nil
}

// AppendSub appends a sub-option.
func AppendSub(dst []byte, code byte, data []byte) []byte {
	return append(append(dst, code, byte(len(data))), data...)
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
