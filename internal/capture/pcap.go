package capture

import (
	"encoding/binary"
	"fmt"
)

// pcap is the classic format (draft-ietf-opsawg-pcap): a header of 24 bytes,
// and records of 16 bytes and a frame.
type pcap struct {
	order binary.ByteOrder
	// unit is what a step of the sub-second field is, in nanoseconds.
	unit int64
}

const (
	pcapHeaderLen = 24
	recordLen     = 16

	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

// newPcap reads the file's header, which starts with magic.
func newPcap(r *Reader, magic []byte) (*pcap, error) {
	p := &pcap{order: binary.LittleEndian}
	if first := binary.BigEndian.Uint32(magic); first == magicMicro || first == magicNano {
		p.order = binary.BigEndian
	}
	switch p.order.Uint32(magic) {
	case magicMicro:
		p.unit = 1000
	case magicNano:
		p.unit = 1
	default:
		return nil, r.fail(fmt.Sprintf("neither pcap nor pcapng: it begins with % x", magic), remedyFormat)
	}
	h, err := r.peek(pcapHeaderLen, "the header", false)
	if err != nil {
		return nil, err
	}
	if major, minor := p.order.Uint16(h[4:]), p.order.Uint16(h[6:]); major != 2 || minor != 4 {
		return nil, r.fail(fmt.Sprintf("pcap version %d.%d, not 2.4", major, minor), remedyFormat)
	}
	// The upper half tells of a frame check sequence, which is padding to us.
	if link := uint16(p.order.Uint32(h[20:])); link != linkEthernet {
		return nil, r.fail("not Ethernet, but "+linkName(link), remedyLinkType)
	}
	r.discard = pcapHeaderLen
	return p, nil
}

func (p *pcap) next(r *Reader) error {
	h, err := r.peek(recordLen, "its header", true)
	if err != nil {
		return r.numbered(err)
	}
	r.frame.Number++
	capLen, wireLen := p.order.Uint32(h[8:]), p.order.Uint32(h[12:])
	if capLen > MaxFrame {
		return r.fail(fmt.Sprintf("its length is said to be %d bytes, more than %d", capLen, MaxFrame), remedyCorrupt)
	}
	time := int64(p.order.Uint32(h))*1e9 + int64(p.order.Uint32(h[4:]))*p.unit
	b, err := r.peek(recordLen+int(capLen), "it", false)
	if err != nil {
		return err
	}
	r.begin(b[recordLen:], wireLen, time, "")
	r.discard = len(b)
	return nil
}
