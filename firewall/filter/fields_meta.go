package filter

import "unsafe"

var metaFields = []Field{
	computed("frame.malformed", TypeBool, 0, "from every layer", "the frame is malformed in any way", func(p *Packet) (Value, bool) {
		return Value{Num: 1}, p.Malformed != 0
	}),
	malformedFlag("eth.malformed", LayerEth, "the Ethernet header, a VLAN tag or LLC/SNAP is malformed"),
	computed("sender.uid", TypeUint, 32, "beside the bytes", "user of the process that sent the frame", func(p *Packet) (Value, bool) {
		if p.Meta().Sender == nil {
			return Value{}, false
		}
		return Value{Num: uint64(p.Meta().Sender.UID)}, true
	}),
	computed("sender.pid", TypeUint, 32, "beside the bytes", "process that sent the frame", func(p *Packet) (Value, bool) {
		if p.Meta().Sender == nil {
			return Value{}, false
		}
		return Value{Num: uint64(p.Meta().Sender.PID)}, true
	}),
	computed("sender.comm", TypeString, 0, "beside the bytes", "command name of that process, at most 15 bytes", func(p *Packet) (Value, bool) {
		if p.Meta().Sender == nil {
			return Value{}, false
		}
		return stringValue(p.Meta().Sender.Comm), true
	}),
	computed("sender.cgroup", TypeString, 0, "beside the bytes", "its cgroup's path below the cgroup2 mount, with a leading slash", func(p *Packet) (Value, bool) {
		if p.Meta().Sender == nil {
			return Value{}, false
		}
		return stringValue(p.Meta().Sender.Cgroup), true
	}),
	computed("iface.name", TypeString, 0, "beside the bytes", "name of the guarded interface", func(p *Packet) (Value, bool) {
		return stringValue(p.Meta().Iface), p.Meta().Iface != ""
	}),
	computed("iface.mac", TypeMAC, 0, "beside the bytes", "the guarded interface's own address", func(p *Packet) (Value, bool) {
		return Value{Num: wireNumber(p.Meta().IfaceMAC[:])}, p.Meta().HasIfaceMAC
	}),
	computed("iface.mark", TypeUint, 32, "beside the bytes", "mark that the frame has as it comes to the guard: from nftables or tc, or from whoever may set SO_MARK", func(p *Packet) (Value, bool) {
		return Value{Num: uint64(p.Meta().Mark)}, true
	}),
	computed("iface.ingress", TypeBool, 0, "beside the bytes", "the frame comes in by the guarded interface", func(p *Packet) (Value, bool) {
		return Value{Num: 1}, p.Meta().Ingress
	}),
}

// stringValue is a string's own bytes, which nobody may change: a copy would allocate.
func stringValue(s string) Value { return Value{Bytes: unsafe.Slice(unsafe.StringData(s), len(s))} }
