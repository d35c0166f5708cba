package bpf

import (
	"encoding/binary"
	"fmt"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
)

// What the program returns to the kernel (include/uapi/linux/pkt_cls.h).
const (
	actUnspec = -1 // TC_ACT_UNSPEC, TCX_NEXT: whatever is attached behind it decides
	actShot   = 2  // TC_ACT_SHOT
)

const afPacket = 17

// mapCounters has two uint64 in each slot, frames and bytes: for the default, malformed
// frames, events that found no room, and the rules.
const mapCounters = "counters"

// main is the program's entry.
func (g *gen) main() *code {
	c := newCode(fnMain)
	net, parsed, judge, finish, ready := c.label(), c.label(), c.label(), c.label(), c.label()
	c.mov(regSKB, asm.R1)
	g.device(c)
	switch {
	case g.opt.PerInterface:
		g.perInterface(c)
	case !g.opt.AllSenders:
		g.packetSockets(c)
	}
	c.emit(asm.StoreImm(asm.RFP, -4, 0, asm.Word))
	c.mapPtr(asm.R1, mapScratch)
	c.mov(asm.R2, asm.RFP)
	c.emit(asm.Add.Imm(asm.R2, -4))
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JNE, asm.R0, 0, ready)
	c.retImm(actShot)
	c.mark(ready)
	c.mov(regScratch, asm.R0)
	g.head(c)
	c.stack(asm.R0, kCur)
	c.st(sCur, asm.R0, asm.Word)
	g.tooFar(c, finish)
	g.beside(c, finish)
	c.link8023(net, parsed)
	c.mark(net)
	c.network(g.uses("arp.is"), parsed)
	c.mark(parsed)
	g.orphan(c)
	g.steady(c, finish)

	p := g.prog.Policy
	if !p.MalformedMatch {
		c.ld(asm.R1, sCause, asm.Word)
		c.jif(asm.JEq, asm.R1, 0, judge)
		c.st(sReason, asm.R1, asm.Word)
		c.sti(sRule, int64(len(p.Rules)+1), asm.Word)
		c.sti(sSlot, countMalformed, asm.Word)
		c.verdict(firewall.Drop, p.Audit)
		c.ja(finish)
	}
	c.mark(judge)
	g.joints(c, finish)
	g.layoutLimits()
	if len(p.Rules) <= g.opt.linear {
		g.linear(c, finish)
	} else {
		g.index(c, finish)
	}
	g.byDefault(c, firewall.ReasonDefault, p.Default)
	c.mark(finish)
	g.finish(c)
	return c
}

// byDefault is a verdict of no rule.
func (g *gen) byDefault(c *code, reason firewall.Reason, v firewall.Verdict) {
	c.sti(sReason, int64(reason), asm.Word)
	c.sti(sRule, int64(len(g.prog.Policy.Rules)), asm.Word)
	c.sti(sSlot, countDefault, asm.Word)
	c.verdict(v, g.prog.Policy.Audit)
}

// packetSockets lets go what no packet socket sent: the IP stack's frames, the
// kernel's own ARP, and what is bridged or forwarded. A frame that waits in a queue
// keeps its socket even when that is closed meanwhile (skb_set_owner_w holds it). What has
// a route is the IP stack's, such as the packet around a frame that a packet socket sent into a
// tunnel. What has neither, and did not come in, may be a copy or a piece of a packet
// socket's frame, made by a bridge or by a device that cuts super-frames: see orphan.
func (g *gen) packetSockets(c *code) {
	other, judge, orphan := c.label(), c.label(), c.label()
	if g.opt.skb.known {
		c.emit(asm.StoreImm(asm.RFP, kOrphan, 0, asm.Word))
		g.look(c, judge)
	}
	if g.sendsOn() {
		// What a rule sent here is judged in any case: a copy has no socket (skb_clone).
		c.stack(asm.R0, kHops)
		c.jif(asm.JNE, asm.R0, 0, judge)
	}
	if g.opt.skb.known {
		c.emit(asm.LoadMem(asm.R0, asm.RFP, g.seen(g.opt.skb.route), asm.DWord))
		c.jif(asm.JNE, asm.R0, 0, other)
	}
	c.emit(asm.LoadMem(asm.R1, regSKB, skbSK, asm.DWord))
	c.jif(asm.JEq, asm.R1, 0, orphan)
	// The family stands in every kind of socket (struct sock_common): no helper is
	// needed to tell a packet socket from others.
	c.emit(asm.LoadMem(asm.R0, asm.R1, 4, asm.Word)) // struct bpf_sock, family
	c.jif(asm.JEq, asm.R0, afPacket, judge)
	c.ja(other)
	c.mark(orphan)
	if g.opt.skb.known {
		c.ctx(asm.R0, skbPktType)
		c.jif(asm.JNE, asm.R0, packetHost, other) // bridged: it came in
		c.emit(asm.StoreImm(asm.RFP, kOrphan, 1, asm.Word))
		c.ja(judge)
	}
	c.mark(other)
	g.letGo(c)
	c.mark(judge)
}

// orphan lets go of a frame without socket and route that is no UDP over IP: the kernel itself sends
// ARP, and what bridges ask for, but no such.
func (g *gen) orphan(c *code) {
	if g.opt.AllSenders && !g.opt.PerInterface || !g.opt.skb.known {
		return
	}
	judge, ipv6, other := c.label(), c.label(), c.label()
	c.stack(asm.R0, kOrphan)
	c.jif(asm.JEq, asm.R0, 0, judge)
	c.ld(asm.R0, sEther, asm.Word)
	c.jif(asm.JEq, asm.R0, etherIPv6, ipv6)
	c.jif(asm.JNE, asm.R0, etherIPv4, other)
	c.ld(asm.R0, sNet+9, asm.Byte)
	c.jif(asm.JEq, asm.R0, protoUDP, judge)
	c.ja(other)
	c.mark(ipv6)
	c.ld(asm.R0, sNet+6, asm.Byte)
	c.jif(asm.JEq, asm.R0, protoUDP, judge)
	c.jif(asm.JEq, asm.R0, protoFragment, judge)
	c.mark(other)
	g.letGo(c)
	c.mark(judge)
}

const (
	packetHost    = 0 // PACKET_HOST, which frames have that did not come in
	protoUDP      = 17
	protoFragment = 44
)

// perInterface asks mapIfaces whose frames are judged on the device.
func (g *gen) perInterface(c *code) {
	unknown, judge, sockets, free := c.label(), c.label(), c.label(), c.label()
	c.emit(asm.StoreImm(asm.RFP, kOrphan, 0, asm.Word))
	c.mapPtr(asm.R1, mapIfaces)
	c.mov(asm.R2, asm.RFP)
	c.emit(asm.Add.Imm(asm.R2, kCur))
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, unknown)
	c.emit(asm.LoadMem(asm.R0, asm.R0, ifaceSenders, asm.Byte))
	c.jif(asm.JEq, asm.R0, uint64(SendersAll), judge)
	c.jif(asm.JEq, asm.R0, uint64(SendersNone), free)
	c.ja(sockets)
	c.mark(unknown)
	if g.opt.AllSenders {
		c.ja(judge)
	}
	c.mark(sockets)
	g.packetSockets(c)
	c.ja(judge)
	c.mark(free)
	g.letGo(c)
	c.mark(judge)
}

// Senders says whose frames are judged on an interface.
type Senders uint8

// The senders. The zero value is the program's own.
const (
	SendersDefault Senders = iota
	SendersNone
	SendersPacketSockets
	SendersAll
)

// beside asks the kernel for what is known beside the frame's bytes. An interface of
// which nobody has told name and address yet is closed: fields that are absent could
// make a rule that refuses miss.
func (g *gen) beside(c *code, finish label) {
	if g.opt.Ingress {
		c.or(sFlags, flagIngress)
	}
	if g.uses("sender.") && !g.opt.Ingress {
		none := c.label()
		c.emit(asm.LoadMem(asm.R1, regSKB, skbSK, asm.DWord))
		c.jif(asm.JEq, asm.R1, 0, none)
		c.helper(asm.FnSkFullsock)
		c.jif(asm.JEq, asm.R0, 0, none)
		g.sender(c)
		c.mark(none)
	}
	if g.uses("iface.") {
		known := c.label()
		c.mapPtr(asm.R1, mapIfaces)
		c.ptr(asm.R2, sCur)
		c.helper(asm.FnMapLookupElem)
		c.jif(asm.JNE, asm.R0, 0, known)
		g.byDefault(c, firewall.ReasonUnknownInterface, firewall.Drop)
		c.ja(finish)
		c.mark(known)
		for i, to := range []int{sIface, sIface + 8, sIfaceMAC} {
			c.emit(asm.LoadMem(asm.R1, asm.R0, int16(8*i), asm.DWord))
			c.st(to, asm.R1, asm.DWord)
		}
		c.or(sFlags, flagIface)
	}
}

// mapIfaces tells of a guarded device by its index: name, 16 bytes, then its
// address as a number of 8 bytes in network order, the first bit set if it has none; then
// Senders, a byte.
const (
	mapIfaces    = "ifaces"
	ifaceBytes   = 32
	ifaceNoMAC   = 16
	ifaceSenders = 24
)

// verdict stores a verdict, in audit mode an acceptance in place of a drop.
func (c *code) verdict(v firewall.Verdict, audit bool) {
	if audit && v == firewall.Drop {
		v = firewall.Accept
		c.or(sFlags, flagAudited)
	}
	c.sti(sVerdict, int64(v), asm.Word)
}

// functionSize is how many instructions a function may have before the next rule
// begins a new one.
const functionSize = 4000

// inlineSize is how many instructions of rules there may be in the main function: a call
// costs as much as a rule or two.
const inlineSize = 500

// linear emits the rules one after the other: the first that ends the walk goes to
// finish.
func (g *gen) linear(c *code, finish label) {
	rules, i := g.prog.Policy.Rules, 0
	emit := func(f *code, size int) {
		for ; i < len(rules) && len(f.ins) < size; i++ {
			g.where = fmt.Sprintf("rule %q", rules[i].Name)
			hit, next := f.label(), f.label()
			g.whole(f, rules[i].Match, hit, next)
			f.mark(hit)
			g.apply(f, i, next)
			f.mark(next)
		}
	}
	c.decided = func() { c.ja(finish) }
	emit(c, len(c.ins)+inlineSize)
	for n := 0; i < len(rules); n++ {
		f := newCode(fmt.Sprintf("rules_%d", n))
		f.decided = func() { f.retImm(1) }
		f.prologue()
		emit(f, functionSize)
		f.retImm(0)
		g.needs(f.name, func() *code { return f })
		c.call(f.name)
		c.jif(asm.JNE, asm.R0, 0, finish)
	}
	g.where = "policy " + g.prog.Policy.Name
}

// apply carries out rule i, which matches; it goes where c.decided says if that ended
// the walk, and to next if its limit was used up.
func (g *gen) apply(c *code, i int, next label) {
	r := g.prog.Policy.Rules[i]
	if r.Limit != nil {
		c.imm(asm.R3, uint64(g.limitOf[i]))
		c.call(fnTake)
		c.jif(asm.JEq, asm.R0, 0, next)
	}
	terminal := r.Action.Terminal()
	if !terminal {
		g.count(c, func(dst asm.Register) { c.imm(dst, uint64(g.plan.counters[i])) })
	}
	switch {
	case r.Action == firewall.ActionMark:
		c.emit(asm.Mov.Imm32(asm.R0, int32(r.Mark)))
		c.st(sMark, asm.R0, asm.Word)
		c.or(sFlags, flagMarked)
		return
	case terminal:
		c.sti(sRule, int64(i), asm.Word)
		c.sti(sSlot, int64(g.plan.counters[i]), asm.Word)
		c.sti(sReason, int64(firewall.ReasonRule), asm.Word)
		c.verdict(firewall.Verdict(r.Action), r.Audit)
		c.decided()
		return
	}
	room := c.label()
	c.ld(asm.R1, sNEffects, asm.Word)
	c.jif(asm.JLT, asm.R1, firewall.MaxEffects, room)
	c.sti(sRule, int64(i), asm.Word)
	c.sti(sReason, int64(firewall.ReasonTooManyEffects), asm.Word)
	c.sti(sVerdict, int64(firewall.Drop), asm.Word)
	c.decided()
	c.mark(room)
	c.mov(asm.R2, asm.R1)
	c.emit(asm.LSh.Imm(asm.R2, 2), asm.Add.Reg(asm.R2, regScratch))
	c.emit(asm.Mov.Imm(asm.R0, int32(i)), asm.StoreMem(asm.R2, sEffects, asm.R0, asm.Word))
	c.emit(asm.Add.Imm(asm.R1, 1))
	c.st(sNEffects, asm.R1, asm.Word)
}

// mapRules says what each rule does: uint32 each of its firewall.Action, rule…, mark,
// the index of the interface it sends to, or of its entry in mapRewrites, its slot in
// mapCounters, and the index of the inspection device by which that interface is guarded.
const (
	mapRules  = "rules"
	ruleBytes = 24
	ruleWhere = 12
	ruleSlot  = 16
	ruleVia   = 20

	ruleAudit   = 1
	ruleLog     = 2
	ruleLimited = 4

	ruleLimitShift = 8 // the number of its limit is in the flags above
)

func (g *gen) ruleContents() contents {
	t := contents{keySize: 4, valSize: ruleBytes}
	sets := uint32(0)
	for i, r := range g.prog.Policy.Rules {
		flags, where := uint32(0), uint32(0)
		if r.Action == firewall.ActionSet {
			where = sets
			sets++
		}
		for bit, on := range map[uint32]bool{ruleAudit: r.Audit, ruleLog: r.Log, ruleLimited: r.Limit != nil} {
			if on {
				flags |= bit
			}
		}
		flags |= uint32(g.limitOf[i]) << ruleLimitShift
		t.keys = binary.NativeEndian.AppendUint32(t.keys, uint32(i))
		for _, v := range []uint32{uint32(r.Action), flags, r.Mark, where, g.plan.counters[i], 0} {
			t.vals = binary.NativeEndian.AppendUint32(t.vals, v)
		}
	}
	return t
}

// carryOut is apply for the rule R3, which is found while the program runs.
func (g *gen) carryOut(c *code, next, decided label) {
	gone, other, effect, room := c.label(), c.label(), c.label(), c.label()
	store := c.label()
	c.mov(asm.R7, asm.R3)
	c.st(sIndex, asm.R3, asm.Word)
	c.mapPtr(asm.R1, mapRules)
	c.ptr(asm.R2, sIndex)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, gone)
	c.mov(asm.R8, asm.R0)
	if len(g.limits) > 0 {
		free := c.label()
		c.emit(asm.LoadMem(asm.R3, asm.R8, 4, asm.Word))
		c.mov(asm.R0, asm.R3)
		c.emit(asm.And.Imm(asm.R0, ruleLimited))
		c.jif(asm.JEq, asm.R0, 0, free)
		c.emit(asm.RSh.Imm(asm.R3, ruleLimitShift))
		c.call(fnTake)
		c.jif(asm.JEq, asm.R0, 0, next)
		c.mark(free)
	}
	c.emit(asm.LoadMem(asm.R1, asm.R8, 0, asm.Word))
	if g.again {
		c.jif(asm.JGT, asm.R1, uint64(firewall.ActionForward), other)
	}
	c.st(sRule, asm.R7, asm.Word)
	c.emit(asm.LoadMem(asm.R2, asm.R8, ruleSlot, asm.Word))
	c.st(sSlot, asm.R2, asm.Word)
	c.sti(sReason, int64(firewall.ReasonRule), asm.Word)
	c.jif(asm.JNE, asm.R1, uint64(firewall.ActionDrop), store)
	c.emit(asm.LoadMem(asm.R2, asm.R8, 4, asm.Word), asm.And.Imm(asm.R2, ruleAudit))
	c.jif(asm.JEq, asm.R2, 0, store)
	c.or(sFlags, flagAudited)
	c.imm(asm.R1, uint64(firewall.Accept))
	c.mark(store)
	c.st(sVerdict, asm.R1, asm.Word)
	c.ja(decided)

	c.mark(other)
	g.count(c, func(dst asm.Register) { c.emit(asm.LoadMem(dst, asm.R8, ruleSlot, asm.Word)) })
	c.emit(asm.LoadMem(asm.R1, asm.R8, 0, asm.Word))
	c.jif(asm.JNE, asm.R1, uint64(firewall.ActionMark), effect)
	c.emit(asm.LoadMem(asm.R1, asm.R8, 8, asm.Word))
	c.st(sMark, asm.R1, asm.Word)
	c.or(sFlags, flagMarked)
	c.ja(next)

	c.mark(effect)
	c.ld(asm.R1, sNEffects, asm.Word)
	c.jif(asm.JLT, asm.R1, firewall.MaxEffects, room)
	c.st(sRule, asm.R7, asm.Word)
	c.sti(sReason, int64(firewall.ReasonTooManyEffects), asm.Word)
	c.sti(sVerdict, int64(firewall.Drop), asm.Word)
	c.mark(gone) // which cannot be: the verdict is what head made it, Drop
	c.ja(decided)
	c.mark(room)
	c.mov(asm.R2, asm.R1)
	c.emit(asm.LSh.Imm(asm.R2, 2), asm.Add.Reg(asm.R2, regScratch), asm.StoreMem(asm.R2, sEffects, asm.R7, asm.Word))
	c.emit(asm.Add.Imm(asm.R1, 1))
	c.st(sNEffects, asm.R1, asm.Word)
	c.ja(next)
}

// count counts the frame in a slot; it clobbers R0 to R5.
func (g *gen) count(c *code, slot func(dst asm.Register)) {
	slot(asm.R1)
	c.st(sIndex, asm.R1, asm.Word)
	g.countAt(c, sIndex)
}

// countAt is count for the slot whose number is in the scratch area.
func (g *gen) countAt(c *code, off int) {
	none := c.label()
	c.mapPtr(asm.R1, mapCounters)
	c.ptr(asm.R2, off)
	c.helper(asm.FnMapLookupElem)
	c.jif(asm.JEq, asm.R0, 0, none)
	c.emit(asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord))
	c.ld(asm.R2, sLen, asm.Word)
	c.emit(asm.LoadMem(asm.R1, asm.R0, 8, asm.DWord), asm.Add.Reg(asm.R1, asm.R2), asm.StoreMem(asm.R0, 8, asm.R1, asm.DWord))
	c.mark(none)
}

func (g *gen) mapSpecs() map[string]*ebpf.MapSpec {
	g.rewrites()
	out := setMaps(g.order, &g.plan.layout)
	maps.Copy(out, g.maps)
	out[mapRules] = &ebpf.MapSpec{Name: mapRules, Type: ebpf.Array, KeySize: 4, ValueSize: ruleBytes, MaxEntries: uint32(max(1, len(g.prog.Policy.Rules)))}
	g.contents[mapRules] = g.ruleContents()
	out[mapScratch] = &ebpf.MapSpec{Name: mapScratch, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: scratchSize, MaxEntries: 1}
	out[mapCounters] = &ebpf.MapSpec{Name: mapCounters, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 16, MaxEntries: g.plan.layout.Counters}
	out[mapAgain] = &ebpf.MapSpec{Name: mapAgain, Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: againBytes, MaxEntries: 1}
	out[mapEvents] = &ebpf.MapSpec{Name: mapEvents, Type: ebpf.RingBuf, MaxEntries: g.opt.EventBytes}
	if g.opt.eachInterface() || g.uses("iface.") {
		out[mapIfaces] = &ebpf.MapSpec{Name: mapIfaces, Type: ebpf.Hash, KeySize: 4, ValueSize: ifaceBytes, MaxEntries: g.opt.Interfaces}
	}
	return out
}
