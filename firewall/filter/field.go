package filter

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

	get func(p *Packet, i int) (Value, bool)
}

// Value returns the field's i-th occurrence, counted from 0 in the order of
// the wire, and false if there is none. It does not allocate.
func (f *Field) Value(p *Packet, i int) (Value, bool) { return f.get(p, i) }

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
