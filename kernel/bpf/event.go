package bpf

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// mapEvents is a ring buffer of events: what a frame was refused for, or what a
// rule with `log` decided, and by whom the frame was sent, as the kernel knew at
// that moment.
const mapEvents = "events"

// Layout of an event.
const (
	evTime    = 0
	evRule    = 8
	evReason  = 12
	evVerdict = 16
	evFlags   = 20
	evLen     = 24
	evIfindex = 28
	evPIDTGID = 32
	evUID     = 40
	evCaplen  = 44
	evCgroup  = 48
	evCookie  = 56
	evComm    = 64
	evTag     = 80 // the frame's first 16 bytes, where a tag was put back
	evFrame   = 96 // the skb's first bytes
	evGen     = evFrame + eventFrame
	evBytes   = evGen + 8

	eventFrame = 320 // a DHCP message down to its first options

	evAudited = 1
	evTagged  = 2
	evSender  = 4
)

// Event tells of one frame.
type Event struct {
	// Time is CLOCK_BOOTTIME in nanoseconds.
	Time    int64
	Verdict firewall.Verdict
	Reason  firewall.Reason
	// Generation is Options.Generation of the program that tells, and RuleIndex which of
	// its rules decided; -1 if the default or the malformed policy did.
	Generation uint32
	RuleIndex  int
	Audited    bool
	// Ifindex is the guarded device's.
	Ifindex int
	// Len is the frame's length in bytes, Frame its first bytes.
	Len   int
	Frame []byte
	// HasSender is false for a frame that has no socket, such as a forwarded one, and
	// for all that comes in:
	// then the fields below say nothing of its sender.
	HasSender bool
	Sender    filter.Sender // but for Cgroup, which the kernel knows by number
	// Cgroup is the sender's cgroup v2 id, Cookie its socket's cookie.
	Cgroup, Cookie uint64
}

// decode reads an event.
func (e *Event) decode(b []byte) {
	u := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
	long := func(off int) uint64 { return binary.NativeEndian.Uint64(b[off:]) }
	*e = Event{
		Time: int64(long(evTime)), Verdict: firewall.Verdict(u(evVerdict)), Reason: firewall.Reason(u(evReason)),
		Generation: u(evGen), RuleIndex: -1, Audited: u(evFlags)&evAudited != 0, Ifindex: int(u(evIfindex)), Len: int(u(evLen)),
		HasSender: u(evFlags)&evSender != 0, Cgroup: long(evCgroup), Cookie: long(evCookie),
	}
	if e.Reason == firewall.ReasonRule || e.Reason == firewall.ReasonTooManyEffects || e.Reason == firewall.ReasonUnsendable {
		e.RuleIndex = int(u(evRule))
	}
	comm := b[evComm : evComm+16]
	for i, c := range comm {
		if c == 0 {
			comm = comm[:i]
			break
		}
	}
	e.Sender = filter.Sender{UID: u(evUID), PID: uint32(long(evPIDTGID) >> 32), Comm: string(comm)}
	frame := b[evFrame : evFrame+min(eventFrame, int(u(evCaplen)))]
	if u(evFlags)&evTagged != 0 && len(frame) >= 12 {
		e.Frame = append(append([]byte(nil), b[evTag:evTag+16]...), frame[12:]...)
		return
	}
	e.Frame = append([]byte(nil), frame...)
}

// events tells userspace of the decision, if it is one to be told.
func (g *gen) events(c *code) {
	tell, done := c.label(), c.label()
	g.needs(fnEvent, g.event)
	c.ld(asm.R0, sVerdict, asm.Word)
	c.jif(asm.JEq, asm.R0, uint64(firewall.Drop), tell)
	logs, audits := false, g.prog.Policy.Audit
	for _, r := range g.prog.Policy.Rules {
		logs, audits = logs || r.Log, audits || r.Audit
	}
	if audits {
		c.ld(asm.R0, sFlags, asm.Word)
		c.emit(asm.And.Imm(asm.R0, flagAudited))
		c.jif(asm.JNE, asm.R0, 0, tell)
	}
	if logs {
		c.ld(asm.R0, sReason, asm.Word)
		c.jif(asm.JNE, asm.R0, uint64(firewall.ReasonRule), done)
		c.ld(asm.R1, sRule, asm.Word)
		g.rule(c, done)
		c.emit(asm.LoadMem(asm.R0, asm.R0, 4, asm.Word), asm.And.Imm(asm.R0, ruleLog))
		c.jif(asm.JNE, asm.R0, 0, tell)
	}
	c.ja(done)
	c.mark(tell)
	c.call(fnEvent)
	c.mark(done)
}

const fnEvent = "event"

// event fills an event from the scratch area.
func (g *gen) event() *code {
	c := newCode(fnEvent)
	ready, noSender, unaudited, untagged := c.label(), c.label(), c.label(), c.label()
	const ev = asm.R7
	c.prologue()
	c.mapPtr(asm.R1, mapEvents)
	c.imm(asm.R2, evBytes)
	c.imm(asm.R3, 0)
	c.helper(asm.FnRingbufReserve)
	c.jif(asm.JNE, asm.R0, 0, ready)
	g.count(c, func(dst asm.Register) { c.imm(dst, countLost) })
	c.retImm(0)
	c.mark(ready)
	c.mov(ev, asm.R0)
	put := func(off int, src asm.Register, size asm.Size) { c.emit(asm.StoreMem(ev, int16(off), src, size)) }
	for _, v := range [][2]int{{evRule, sRule}, {evReason, sReason}, {evVerdict, sVerdict}, {evLen, sLen}} {
		c.ld(asm.R0, v[1], asm.Word)
		put(v[0], asm.R0, asm.Word)
	}
	c.helper(asm.FnKtimeGetBootNs)
	put(evTime, asm.R0, asm.DWord)
	c.ld(asm.R0, sCur, asm.Word)
	put(evIfindex, asm.R0, asm.Word)
	c.imm(asm.R0, uint64(g.opt.Generation))
	put(evGen, asm.R0, asm.DWord)
	g.eventSender(c)
	c.mov(asm.R1, regSKB)
	c.helper(asm.FnSkbCgroupId)
	put(evCgroup, asm.R0, asm.DWord)
	c.mov(asm.R1, regSKB)
	c.helper(asm.FnGetSocketCookie)
	put(evCookie, asm.R0, asm.DWord)

	// R8 = flags
	c.imm(asm.R8, 0)
	if !g.opt.Ingress {
		c.emit(asm.LoadMem(asm.R1, regSKB, skbSK, asm.DWord))
		c.jif(asm.JEq, asm.R1, 0, noSender)
		c.emit(asm.Or.Imm(asm.R8, evSender))
		c.mark(noSender)
	}
	c.testBits(sFlags, flagAudited, unaudited)
	c.emit(asm.Or.Imm(asm.R8, evAudited))
	c.mark(unaudited)
	c.ld(asm.R0, sShift, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, untagged)
	c.emit(asm.Or.Imm(asm.R8, evTagged))
	for i := 0; i < 16; i += 8 {
		c.ld(asm.R0, sFirst+i, asm.DWord)
		put(evTag+i, asm.R0, asm.DWord)
	}
	c.mark(untagged)
	put(evFlags, asm.R8, asm.Word)
	g.eventBytes(c)
	c.mov(asm.R1, ev)
	c.imm(asm.R2, 0)
	c.helper(asm.FnRingbufSubmit)
	c.retImm(0)
	return c
}

// eventSender tells who runs, in the event at R7; of a kernel that does not say, whose the socket is.
func (g *gen) eventSender(c *code) {
	put := func(off int, size asm.Size) { c.emit(asm.StoreMem(asm.R7, int16(off), asm.R0, size)) }
	if g.opt.anonymous {
		c.mov(asm.R1, regSKB)
		c.helper(asm.FnGetSocketUid)
		put(evUID, asm.Word)
		c.imm(asm.R0, 0)
		put(evPIDTGID, asm.DWord)
		put(evComm, asm.DWord)
		put(evComm+8, asm.DWord)
		return
	}
	c.helper(asm.FnGetCurrentPidTgid)
	put(evPIDTGID, asm.DWord)
	c.helper(asm.FnGetCurrentUidGid)
	put(evUID, asm.Word)
	c.mov(asm.R1, asm.R7)
	c.emit(asm.Add.Imm(asm.R1, evComm))
	c.imm(asm.R2, 16)
	c.helper(asm.FnGetCurrentComm)
}

// eventBytes copies the skb's first bytes into the event at R7.
func (g *gen) eventBytes(c *code) {
	none := c.label()
	c.ctx(asm.R4, skbLen)
	c.min(asm.R4, eventFrame)
	c.emit(asm.StoreMem(asm.R7, evCaplen, asm.R4, asm.Word))
	c.jif(asm.JEq, asm.R4, 0, none)
	c.mov(asm.R1, regSKB)
	c.imm(asm.R2, 0)
	c.mov(asm.R3, asm.R7)
	c.emit(asm.Add.Imm(asm.R3, evFrame))
	c.helper(asm.FnSkbLoadBytes)
	c.mark(none)
}
