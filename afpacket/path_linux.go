package afpacket

import (
	"sync"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// maxHops is how often a frame may change its interface: nf_dup_netdev.c lets
// NF_RECURSION_LIMIT + 1 nested transmissions happen.
const maxHops = 3

// port is where a frame can go out: an interface of the sender's network
// namespace, or an overlay.
type port struct {
	ifindex int32
	name    string
	mac     [6]byte
	dev     *device  // nil: no hooks there
	overlay *Overlay // nil: an interface
	// meta is what is known of the frames that leave there without a mark, made once for the way that most take;
	// nil for others.
	meta *filter.Meta
	// asked is what links.changes was before the kernel was asked for all this.
	asked uint64
}

// known is the same for a frame with a mark.
func (p *port) known(mark uint32) filter.Meta {
	return filter.Meta{Iface: p.name, IfaceMAC: p.mac, HasIfaceMAC: true, Mark: mark, Sender: self()}
}

// ports finds an interface by its name.
type ports interface {
	port(t *transit, name string) (port, error)
}

// out is a frame on the far side of the data path, to be given to the kernel.
type out struct {
	frame   []byte
	ifindex int32
	mark    uint32
	msg     int // its place in transit.errs; none if negative: a copy
}

// skb is a frame on its way.
type skb struct {
	bytes []byte
	mark  uint32
	hops  int
	msg   int
	// skip is nf_skip_egress: the firewall has seen it.
	skip bool
}

// transit carries frames through the data path: scratch memory, used by one
// call at a time.
type transit struct {
	ports ports
	event func(*Event)
	// own is the sender's firewall, or nil, and home the interface it is for: a
	// frame that comes out there again is judged again.
	own  Classifier
	home int32
	// at is what the outlet said of itself, once for all messages that are led through together.
	at *port

	block []byte // what alloc cuts from
	outs  []out
	errs  []error // one for each message

	// These are here because what a hook is given escapes to the heap.
	pkt   filter.Packet
	meta  filter.Meta
	lower Frame

	kernel kernel
}

const blockSize = 64 << 10

var transits = sync.Pool{New: func() any {
	t := &transit{block: make([]byte, 0, 4<<10)}
	t.kernel.init(t)
	return t
}}

// begin readies a transit for n messages.
func begin(p ports, event func(*Event), n int) *transit {
	t := transits.Get().(*transit)
	t.ports, t.event = p, event
	t.reset(n)
	return t
}

func (t *transit) reset(n int) {
	for i := range t.outs {
		t.outs[i].frame = nil
	}
	for i := range t.errs {
		t.errs[i] = nil
	}
	t.block, t.outs, t.errs, t.at = t.block[:0], t.outs[:0], t.errs[:0], nil
	for range n {
		t.errs = append(t.errs, nil)
	}
}

// end gives t back.
func (t *transit) end() {
	t.clear()
	transits.Put(t)
}

// clear forgets the memory of t's callers.
func (t *transit) clear() {
	t.reset(0)
	t.kernel.forget()
	t.ports, t.event, t.own = nil, nil, nil
	if cap(t.block) > 4*blockSize {
		t.block, t.pkt, t.lower = nil, filter.Packet{}, Frame{}
	}
}

// alloc cuts n bytes from the block. They stay valid, and in place, until reset.
func (t *transit) alloc(n int) []byte {
	if cap(t.block)-len(t.block) < n {
		t.block = make([]byte, 0, max(blockSize, n))
	}
	off := len(t.block)
	t.block = t.block[:off+n]
	return t.block[off : off+n : off+n]
}

func (t *transit) copy(b []byte) []byte {
	c := t.alloc(len(b))
	copy(c, b)
	return c
}

// egress is __dev_queue_xmit: the classifiers, the lower layer, the device. What
// passes is appended to t.outs.
func (t *transit) egress(p *port, f skb) error {
	var hooks *hookList
	if p.dev != nil {
		hooks = p.dev.hooks.Load()
	}
	if !f.skip {
		if t.own != nil && p.ifindex == t.home {
			if gone, err := t.classify(p, t.own, &f); gone {
				return err
			}
		}
		if hooks != nil {
			for _, h := range hooks.upper {
				if gone, err := t.classify(p, h.classifier, &f); gone {
					return err
				}
			}
		}
	}
	if hooks != nil {
		f.skip = true
		for _, h := range hooks.lower {
			if gone, err := t.lowerLayer(p, h.lower, &f); gone {
				return err
			}
		}
	}
	f.skip = false
	if p.overlay != nil {
		return p.overlay.encapsulate(t, f)
	}
	t.outs = append(t.outs, out{f.bytes, p.ifindex, f.mark, f.msg})
	return nil
}

// classify asks one classifier and does what it says. gone is true if the frame
// goes no further on this device.
func (t *transit) classify(p *port, c Classifier, f *skb) (gone bool, err error) {
	m := p.meta
	if m == nil || f.mark != 0 {
		t.meta = p.known(f.mark)
		m = &t.meta
	}
	t.pkt.Decode(f.bytes, m)
	d := c.Classify(&t.pkt)
	if d.Verdict == firewall.Accept && d.Plain() && t.event == nil {
		return false, nil
	}
	return t.act(p, &d, f)
}

// act does what a decision says beyond accepting.
func (t *transit) act(p *port, d *firewall.Decision, f *skb) (gone bool, err error) {
	rule := d.RuleName()
	if d.Verdict != firewall.Accept && d.Verdict != firewall.Forward {
		err = t.refuse(p, rule, d.Reason, f.bytes)
	} else if t.event != nil && (d.Audited || d.Rule != nil && d.Rule.Log) {
		t.event(t.newEvent(p, rule, d, f.bytes))
	}
	if d.Reason == firewall.ReasonTooManyEffects {
		return true, err
	}
	if d.Marked {
		f.mark = d.Mark
	}
	if !t.effects(p, d, f) && err == nil {
		err = t.refuse(p, rule, firewall.ReasonUnsendable, f.bytes)
	}
	switch {
	case err != nil:
		return true, err
	case d.Verdict == firewall.Forward:
		if d.Rule == nil {
			return true, t.refuse(p, rule, firewall.ReasonUnsendable, f.bytes)
		}
		return true, t.move(p, d.Rule.Iface, rule, *f)
	}
	return false, nil
}

// effects carries out `duplicate` and `set` in the order of the rules. It
// reports false if a `set` could not be done.
func (t *transit) effects(p *port, d *firewall.Decision, f *skb) bool {
	var rules [firewall.MaxEffects]*firewall.Rule
	for i := range d.Effects() {
		rules[i] = d.Effect(i) // what is duplicated is classified, and t.pkt with it
	}
	for _, r := range rules[:d.Effects()] {
		switch r.Action {
		case firewall.ActionDuplicate:
			twin := *f
			twin.bytes, twin.msg = t.copy(f.bytes), -1
			// As in nf_dup_netdev_egress, what becomes of the copy is not the
			// sender's concern; a refusal has been told to Config.Event.
			_ = t.move(p, r.Iface, r.Name, twin)
		case firewall.ActionSet:
			if !firewall.Rewrite(f.bytes, r.Set) {
				return false
			}
		}
	}
	return true
}

// lowerLayer asks one hook of the lower layer.
func (t *transit) lowerLayer(p *port, l Lower, f *skb) (gone bool, err error) {
	t.lower = Frame{f.bytes, f.mark}
	v, iface := l(&t.lower)
	f.mark = t.lower.Mark
	switch v {
	case firewall.Accept:
		return false, nil
	case firewall.Forward:
		return true, t.move(p, iface, "lower layer", *f)
	}
	return true, t.refuse(p, "lower layer", firewall.ReasonRule, f.bytes)
}

// move sends the frame out at another interface, from the top of its data path.
func (t *transit) move(from *port, to, rule string, f skb) error {
	if f.hops++; f.hops > maxHops {
		return t.refuse(from, rule, firewall.ReasonRecursion, f.bytes)
	}
	p, err := t.ports.port(t, to)
	if err != nil {
		return t.refuse(from, rule, firewall.ReasonUnsendable, f.bytes)
	}
	return t.egress(&p, f)
}

func (t *transit) refuse(p *port, rule string, why firewall.Reason, frame []byte) error {
	e := &BlockedError{*t.newEvent(p, rule, &firewall.Decision{Outcome: firewall.Outcome{Reason: why}}, frame)}
	if t.event != nil {
		t.event(&e.Event)
	}
	return e
}

func (t *transit) newEvent(p *port, rule string, d *firewall.Decision, frame []byte) *Event {
	var pkt filter.Packet
	pkt.Decode(frame, nil)
	return &Event{
		Interface: p.name, Rule: rule, Reason: d.Reason, Verdict: d.Verdict, Audited: d.Audited,
		Frame: pkt.Summary(), Len: len(frame), Sender: *self(),
	}
}
