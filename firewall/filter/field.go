package filter

import "encoding/binary"

// Engines is a bit set of the engines that can read a field.
type Engines uint8

// The engines.
const (
	InProcess  Engines = 1 << iota // Go's Classify
	Kernel                         // the eBPF program
	Everywhere = InProcess | Kernel
)

// Field is one row of the catalogue.
type Field struct {
	Name string
	Type Type
	// Bits is the width of a TypeUint on the wire; 0 for other types.
	Bits int
	// Many is true if a frame can hold several occurrences.
	Many    bool
	Engines Engines
	// Where says where the bytes are, for people: "ARP, offset 14, 4 bytes".
	Where string
	// Doc is one line for the table of fields.
	Doc string
	// At says the same for an engine, where a fixed place is all there is to say: a
	// place for each occurrence, in the order of the wire; on LayerVLAN, one place
	// in every tag. It is empty for a field that takes more to find.
	At []Place
	// Option is the DHCP option that holds the field, 0 if none does.
	Option uint8

	get func(p *Packet, i int) (Value, bool)
}

// Place is a field's place in its layer. It is there if the layer reaches as far
// as its last byte; its value is the bytes in network byte order, shifted right
// by Shift bits, and Mask of that. A TypeProtocol is the whole layer.
type Place struct {
	Layer    Layer
	Off, Len int // bytes
	Shift    uint8
	Mask     uint64
}

// Value returns the field's i-th occurrence, counted from 0 in the order of
// the wire, and false if there is none. It does not allocate.
func (f *Field) Value(p *Packet, i int) (Value, bool) {
	if f.get != nil {
		return f.get(p, i)
	}
	if f.At[0].Layer == LayerVLAN {
		return f.inTag(p, i)
	}
	if i < 0 || i >= len(f.At) {
		return Value{}, false
	}
	return f.in(p.Bytes(f.At[i].Layer), &f.At[i])
}

// inTag reads the field in the i-th tag.
func (f *Field) inTag(p *Packet, i int) (Value, bool) {
	if i < 0 || i >= len(p.Frame().Tags()) {
		return Value{}, false
	}
	return f.in(p.Frame().TagBytes(i), &f.At[0])
}

// in reads the field at its place in b.
func (f *Field) in(b []byte, at *Place) (Value, bool) {
	switch {
	case f.Type == TypeProtocol:
		return Value{Bytes: b}, b != nil
	case len(b) < at.Off+at.Len:
		return Value{}, false
	case f.Type.Numeric():
		return Value{Num: wireNumber(b[at.Off:at.Off+at.Len]) >> at.Shift & at.Mask}, true
	}
	return Value{Bytes: b[at.Off : at.Off+at.Len : at.Off+at.Len]}, true
}

// wireNumber is b in network byte order; at most 8 bytes.
func wireNumber(b []byte) (n uint64) {
	if len(b) == 6 { // a hardware address
		return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
	}
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// Meta is what is known of a frame beside its bytes.
type Meta struct {
	// WireLen is the frame's length on the wire when the bytes at hand were cut
	// short by a capture; 0 means all are here.
	WireLen int
	// GSOSize is the segment size in bytes of a GSO super-frame, else 0.
	GSOSize int
	// Iface names the guarded interface; "" where unknown.
	Iface string
	// IfaceMAC is the interface's EUI-48 address; valid if HasIfaceMAC.
	IfaceMAC    [6]byte
	HasIfaceMAC bool
	// Mark is the frame's (skb->mark) as it comes to the interface.
	Mark uint32
	// Ingress is true for a frame that comes in by the interface: it has no sender here.
	Ingress bool
	// Time is the instant of classification in nanoseconds: CLOCK_BOOTTIME on a
	// live path, the capture's time stamp in a replay. 0 means "read the clock".
	Time int64
	// Sender is who sent it; nil where unknown (a capture).
	Sender *Sender
}

// Sender is the process that sent a frame.
type Sender struct {
	UID, PID uint32
	Comm     string // at most 15 bytes, as in /proc/PID/comm
	Cgroup   string // path below the cgroup2 mount, with a leading slash
}
