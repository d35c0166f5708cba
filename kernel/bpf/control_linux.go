package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/postern-fw/postern/firewall"
)

// SetInterface tells the program the name and the address of a device, for the fields under
// `iface.`; addr has 6 bytes, or is nil if the device has none. senders is for variants
// PerInterface.
func (e *Engine) SetInterface(index int, name string, addr []byte, senders Senders) error {
	m := e.maps[mapIfaces]
	if m == nil {
		return nil // the policy does not ask
	}
	var val [ifaceBytes]byte
	copy(val[:15], name)
	if len(addr) == 6 {
		copy(val[18:], addr)
	} else {
		val[ifaceNoMAC] = 0x80
	}
	val[ifaceSenders] = byte(senders)
	if err := m.Put(uint32(index), val[:]); err != nil {
		return fmt.Errorf("telling the program of the interface %s (%d devices at most): %w", name, m.MaxEntries(), err)
	}
	return nil
}

// Targets are the interfaces that a policy's rules send frames to.
func Targets(p *firewall.Policy) (names []string) {
	seen := map[string]bool{}
	for _, r := range p.Rules {
		if (r.Action == firewall.ActionForward || r.Action == firewall.ActionDuplicate) && !seen[r.Iface] {
			seen[r.Iface] = true
			names = append(names, r.Iface)
		}
	}
	return names
}

// Interfaces are the devices that the program was told of.
func (e *Engine) Interfaces() (list []int, err error) {
	m := e.maps[mapIfaces]
	if m == nil {
		return nil, nil
	}
	var index uint32
	var val [ifaceBytes]byte
	it := m.Iterate()
	for it.Next(&index, &val) {
		list = append(list, int(index))
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("reading which interfaces the program was told of: %w", err)
	}
	return list, nil
}

// ForgetInterface takes back SetInterface: frames of that device are refused from then on if
// the policy asks for its name or address.
func (e *Engine) ForgetInterface(index int) error {
	m := e.maps[mapIfaces]
	if m == nil {
		return nil
	}
	if err := m.Delete(uint32(index)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("telling the program that interface %d is gone: %w", index, err)
	}
	return nil
}

// SetTarget tells the program the index of an interface that the policy's rules send frames
// to, 0 if it is gone: then what is to be forwarded is refused, and nothing is
// duplicated. Until it is told, an interface is gone. via is the inspection device of the
// gate that guards the interface, 0 if none does.
func (e *Engine) SetTarget(p *firewall.Policy, name string, index, via int) error {
	for i, r := range p.Rules {
		if r.Action != firewall.ActionForward && r.Action != firewall.ActionDuplicate || r.Iface != name {
			continue
		}
		val := make([]byte, ruleBytes)
		if err := e.maps[mapRules].Lookup(uint32(i), val); err != nil {
			return fmt.Errorf("reading rule %q: %w", r.Name, err)
		}
		binary.NativeEndian.PutUint32(val[ruleWhere:], uint32(index))
		binary.NativeEndian.PutUint32(val[ruleVia:], uint32(via))
		if err := e.maps[mapRules].Put(uint32(i), val); err != nil {
			return fmt.Errorf("telling rule %q where %s is: %w", r.Name, name, err)
		}
	}
	return nil
}

// Counters are how often every rule of the policy matched, in order, then the default's and
// the malformed frames'.
func (e *Engine) Counters(p *firewall.Policy) ([]firewall.Counter, error) {
	out := make([]firewall.Counter, len(p.Rules)+2)
	row := make([]byte, ruleBytes)
	for i := range out {
		slot := uint32(i - len(p.Rules)) // countDefault, countMalformed
		if i < len(p.Rules) {
			out[i].Rule = p.Rules[i]
			if err := e.maps[mapRules].Lookup(uint32(i), row); err != nil {
				return nil, fmt.Errorf("reading rule %q: %w", p.Rules[i].Name, err)
			}
			slot = binary.NativeEndian.Uint32(row[ruleSlot:])
		}
		n, err := e.counter(slot)
		if err != nil {
			return nil, err
		}
		out[i].Frames, out[i].Bytes = n[0], n[1]
	}
	return out, nil
}

// Lost is how many events found no room.
func (e *Engine) Lost() (uint64, error) {
	n, err := e.counter(countLost)
	return n[0], err
}

func (e *Engine) counter(slot uint32) (sum [2]uint64, err error) {
	var cpus [][2]uint64
	if err := e.maps[mapCounters].Lookup(slot, &cpus); err != nil {
		return sum, fmt.Errorf("reading the counters: %w", err)
	}
	for _, c := range cpus {
		sum[0] += c[0]
		sum[1] += c[1]
	}
	return sum, nil
}

// Events reads what the program tells of frames. Only one reader should read.
type Events struct {
	ring *ringbuf.Reader
	rec  ringbuf.Record
}

// Events opens the ring buffer; the caller must Close it.
func (e *Engine) Events() (*Events, error) {
	r, err := ringbuf.NewReader(e.maps[mapEvents])
	if err != nil {
		return nil, fmt.Errorf("opening the ring buffer of events: %w", err)
	}
	return &Events{ring: r}, nil
}

// SameEvents says whether two engines tell by the same ring buffer.
func (e *Engine) SameEvents(other *Engine) (bool, error) {
	if e == nil || other == nil {
		return false, nil
	}
	var ids [2]ebpf.MapID
	for i, m := range []*ebpf.Map{e.maps[mapEvents], other.maps[mapEvents]} {
		info, err := m.Info()
		if err != nil {
			return false, fmt.Errorf("asking for the ring buffer of events: %w", err)
		}
		ids[i], _ = info.ID()
	}
	return ids[0] == ids[1], nil
}

// SetDeadline bounds how long Read waits; it then returns os.ErrDeadlineExceeded.
func (r *Events) SetDeadline(t time.Time) { r.ring.SetDeadline(t) }

// Read waits for the next event and overwrites ev with it. After Close it returns
// os.ErrClosed.
func (r *Events) Read(ev *Event) error {
	if err := r.ring.ReadInto(&r.rec); err != nil {
		return fmt.Errorf("reading an event: %w", err)
	}
	if len(r.rec.RawSample) < evBytes {
		return fmt.Errorf("an event of %d bytes, fewer than %d", len(r.rec.RawSample), evBytes)
	}
	ev.decode(r.rec.RawSample)
	return nil
}

// Close ends reading.
func (r *Events) Close() error { return r.ring.Close() }

// Probe says what this kernel, or this process's rights, lack for programs of this
// package; its error matches ErrNotSupported. It loads a program and no more.
func Probe() error {
	spec, err := Compile(firewall.Compile(&firewall.Policy{Name: "probe"}), Options{})
	if err != nil {
		return err
	}
	e, err := spec.Load()
	switch {
	case err == nil:
		return e.Close()
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: %w", ErrNotSupported, err)
	}
	return fmt.Errorf("%w: loading a program, which needs CAP_BPF and CAP_NET_ADMIN in the initial user namespace, and Linux 5.17 (%v): %w",
		ErrNotSupported, asm.FnLoop, err)
}
