package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// pcapng is draft-ietf-opsawg-pcapng: blocks with their length at both ends, in
// sections that each have their byte order and interfaces.
type pcapng struct {
	order  binary.ByteOrder
	ifaces []iface
}

// iface is an interface description block.
type iface struct {
	name    string
	link    uint16
	snapLen uint32
	// perSecond is the clock's resolution, offset is added to it in seconds.
	perSecond uint64
	offset    int64
}

// The block types that are looked into; others are passed over.
const (
	blockSection   = 0x0a0d0d0a
	blockInterface = 1
	blockPacket    = 2 // obsolete
	blockSimple    = 3
	blockEnhanced  = 6

	blockJournal    = 9
	blockCustom     = 0x00000bad
	blockCustomKeep = 0x40000bad

	magicOrder = 0x1a2b3c4d
)

// Bounds on what a section may make the reader keep.
const (
	maxIfaces  = 1 << 16
	maxNameLen = 255
)

func (p *pcapng) next(r *Reader) error {
	for {
		typ, body, err := p.block(r)
		if err != nil {
			return err
		}
		switch typ {
		case blockSection:
			err = p.section(r, body)
		case blockInterface:
			err = p.iface(r, body)
		case blockEnhanced, blockPacket:
			return p.packet(r, typ, body)
		case blockSimple:
			return p.simple(r, body)
		}
		if err != nil {
			return err
		}
		_, _ = r.in.Discard(r.discard) // what was peeked at
		r.discard = 0
	}
}

// block goes to the next block and peeks at all of it, or passes over one that
// is none of ours. The body is without the lengths at both ends.
func (p *pcapng) block(r *Reader) (typ uint32, body []byte, err error) {
	h, err := r.peek(12, "the next block", true)
	if err != nil {
		return 0, nil, r.numbered(err)
	}
	if binary.LittleEndian.Uint32(h) == blockSection { // a palindrome
		switch {
		case binary.LittleEndian.Uint32(h[8:]) == magicOrder:
			p.order = binary.LittleEndian
		case binary.BigEndian.Uint32(h[8:]) == magicOrder:
			p.order = binary.BigEndian
		default:
			return 0, nil, p.fail(r, "a section header without a byte order", remedyCorrupt)
		}
	}
	typ, n := p.order.Uint32(h), p.order.Uint32(h[4:])
	if n < 12 || n%4 != 0 {
		return 0, nil, p.fail(r, fmt.Sprintf("a block's length is said to be %d bytes", n), remedyCorrupt)
	}
	switch typ {
	case blockSection, blockInterface, blockPacket, blockSimple, blockEnhanced:
	case blockJournal, blockCustom, blockCustomKeep:
		// No frames, but Wireshark numbers them, and its numbers are what people have.
		r.frame.Number++
		return typ, nil, p.pass(r, n)
	default:
		return typ, nil, p.pass(r, n)
	}
	if n > maxBlock {
		return 0, nil, p.fail(r, fmt.Sprintf("a block's length is said to be %d bytes, more than %d", n, maxBlock), remedyCorrupt)
	}
	b, err := r.peek(int(n), "a block", false)
	if err != nil {
		return 0, nil, r.numbered(err)
	}
	if p.order.Uint32(b[n-4:]) != n {
		return 0, nil, p.fail(r, "a block's two lengths differ", remedyCorrupt)
	}
	r.discard = int(n)
	return typ, b[8 : n-4], nil
}

// pass discards a block of another type, which may be as long as it likes.
func (p *pcapng) pass(r *Reader, n uint32) error {
	done, err := r.in.Discard(int(n - 4))
	if err == nil {
		var b []byte
		if b, err = r.in.Peek(4); err == nil {
			if p.order.Uint32(b) != n {
				return p.fail(r, "a block's two lengths differ", remedyCorrupt)
			}
			_, err = r.in.Discard(4)
		}
	}
	if err != nil {
		r.frame.Number++
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return r.wrap(err, fmt.Sprintf("cut short: a block before it has %d of %d bytes", done, n), remedyCut)
	}
	return nil
}

func (p *pcapng) section(r *Reader, b []byte) error {
	if len(b) < 16 {
		return p.fail(r, "a section header that is too short", remedyCorrupt)
	}
	if major, minor := p.order.Uint16(b[4:]), p.order.Uint16(b[6:]); major != 1 || minor != 0 && minor != 2 {
		return p.fail(r, fmt.Sprintf("pcapng version %d.%d, not 1.0", major, minor), remedyFormat)
	}
	p.ifaces = p.ifaces[:0]
	return nil
}

func (p *pcapng) iface(r *Reader, b []byte) error {
	if len(b) < 8 {
		return p.fail(r, "an interface description that is too short", remedyCorrupt)
	}
	if len(p.ifaces) == maxIfaces {
		return p.fail(r, fmt.Sprintf("more than %d interfaces", maxIfaces), remedyCorrupt)
	}
	i := iface{link: p.order.Uint16(b), snapLen: p.order.Uint32(b[4:]), perSecond: 1e6}
	for b = b[8:]; len(b) >= 4; {
		code, n := p.order.Uint16(b), int(p.order.Uint16(b[2:]))
		if b = b[4:]; code == 0 || n > len(b) {
			break
		}
		switch v := b[:n]; {
		case code == 2:
			i.name = string(bytes.TrimRight(v[:min(n, maxNameLen)], "\x00"))
		case code == 9 && n >= 1:
			if i.perSecond = resolution(v[0]); i.perSecond == 0 {
				return p.fail(r, fmt.Sprintf("an interface's time resolution is said to be %#x", v[0]), remedyCorrupt)
			}
		case code == 14 && n >= 8:
			i.offset = int64(p.order.Uint64(v))
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	p.ifaces = append(p.ifaces, i)
	return nil
}

// resolution reads if_tsresol: a negative power of 10, or of 2. 0 is too fine.
func resolution(v byte) uint64 {
	if v&0x80 != 0 {
		if v &= 0x7f; v > 63 {
			return 0
		}
		return 1 << v
	}
	if v > 19 {
		return 0
	}
	n := uint64(1)
	for range v {
		n *= 10
	}
	return n
}

func (p *pcapng) packet(r *Reader, typ uint32, b []byte) error {
	r.frame.Number++
	if len(b) < 20 {
		return r.fail("its block is too short", remedyCorrupt)
	}
	id := p.order.Uint32(b)
	if typ == blockPacket {
		id = uint32(p.order.Uint16(b)) // the other half counts drops
	}
	if int64(id) >= int64(len(p.ifaces)) {
		return r.fail(fmt.Sprintf("interface %d, of %d that are described", id, len(p.ifaces)), remedyCorrupt)
	}
	i := &p.ifaces[id]
	ts := uint64(p.order.Uint32(b[4:]))<<32 | uint64(p.order.Uint32(b[8:]))
	capLen, wireLen, data := p.order.Uint32(b[12:]), p.order.Uint32(b[16:]), b[20:]
	if capLen > MaxFrame || int(capLen) > len(data) {
		return r.fail(fmt.Sprintf("its length is said to be %d bytes, in a block that has %d", capLen, len(data)), remedyCorrupt)
	}
	return p.deliver(r, i, data[:capLen], wireLen, i.time(ts))
}

// simple reads a simple packet block, which has neither interface nor time.
func (p *pcapng) simple(r *Reader, b []byte) error {
	r.frame.Number++
	if len(b) < 4 || len(p.ifaces) == 0 {
		return r.fail("a simple packet block without length or interface", remedyCorrupt)
	}
	i, wireLen, data := &p.ifaces[0], p.order.Uint32(b), b[4:]
	n := int64(wireLen)
	if i.snapLen != 0 {
		n = min(n, int64(i.snapLen))
	}
	if n > MaxFrame || n > int64(len(data)) {
		return r.fail(fmt.Sprintf("its length is said to be %d bytes, in a block that has %d", n, len(data)), remedyCorrupt)
	}
	return p.deliver(r, i, data[:n], wireLen, noTime)
}

func (p *pcapng) deliver(r *Reader, i *iface, data []byte, wireLen uint32, time int64) error {
	if i.link != linkEthernet {
		return r.skip(i.link, i.name)
	}
	r.begin(data, wireLen, time, i.name)
	return nil
}

// time converts a time stamp to nanoseconds since 1970; what does not fit is
// the nearest that does.
func (i *iface) time(ts uint64) int64 {
	const most = math.MaxInt64/1_000_000_000 - 1 // seconds
	sec, frac := ts/i.perSecond, ts%i.perSecond
	hi, lo := bits.Mul64(frac, 1e9)
	ns, _ := bits.Div64(hi, lo, i.perSecond)
	if sec > most || i.offset > most || i.offset < -most {
		return math.MaxInt64
	}
	return min(int64(sec)+i.offset, most)*1e9 + int64(ns)
}

// numbered gives an error at the start of a record the number of the frame that
// would have come.
func (r *Reader) numbered(err error) error {
	if e, ok := err.(*Error); ok {
		r.frame.Number++
		e.Frame = r.frame.Number
	}
	return err
}

func (p *pcapng) fail(r *Reader, msg, remedy string) error { return r.numbered(r.fail(msg, remedy)) }
