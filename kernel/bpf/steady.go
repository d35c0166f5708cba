package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/firewall/filter"
)

// What is judged must be what leaves. The bytes in page fragments are the sender's own memory where it
// sends by TX_RING or with MSG_ZEROCOPY, and another thread of it may write to them at any time:
// they are moved to the skb's linear part before the first of them is read (bpf_skb_pull_data).
// And a sender with PACKET_VNET_HDR, or a virtual machine, may say where a checksum is to be written
// behind every hook (CHECKSUM_PARTIAL): only where a checksum is may that be.

// pullAtOnce is how many bytes are moved at least: as a rule the whole frame.
const pullAtOnce = 4096

// fnStill moves bytes of which some are beyond sStable.
const fnStill = "still"

// linearPart notes how many bytes of the frame, R7 long, are the kernel's own. Where those are not even
// the head, all are made so, without the detour by fnStill.
func (g *gen) linearPart(c *code) {
	g.needs(fnStill, still)
	noted, moved := c.label(), c.label()
	c.sti(sMoving, 0, asm.Word)
	c.ctx(asm.R1, skbDataEnd)
	c.ctx(asm.R2, skbData)
	c.emit(asm.Sub.Reg(asm.R1, asm.R2))
	c.st(sStable, asm.R1, asm.Word)
	c.jreg(asm.JGE, asm.R1, asm.R7, noted)
	c.jif(asm.JGE, asm.R1, headLen, noted)
	c.mov(asm.R8, asm.R7)
	c.min(asm.R8, pullAtOnce)
	c.mov(asm.R1, regSKB)
	c.mov(asm.R2, asm.R8)
	c.helper(asm.FnSkbPullData)
	c.jif(asm.JEq, asm.R0, 0, moved)
	c.sti(sMoving, 1, asm.Word) // there is no memory
	c.ja(noted)
	c.mark(moved)
	c.st(sStable, asm.R8, asm.Word)
	c.mark(noted)
}

// still makes sure that R4 bytes from R2 on, as the skb counts, are the kernel's own. again is
// emitted to load R4 anew where a function had to be called.
func (c *code) still(again func()) {
	ok := c.label()
	c.mov(asm.R0, asm.R2)
	c.emit(asm.Add.Reg(asm.R0, asm.R4))
	c.ld(asm.R1, sStable, asm.Word)
	c.jreg(asm.JLE, asm.R0, asm.R1, ok)
	c.st(sFetchAt, asm.R2, asm.Word)
	c.st(sFetchN, asm.R4, asm.Word)
	c.call(fnStill)
	c.ld(asm.R2, sFetchAt, asm.Word)
	again()
	c.mark(ok)
}

// still moves what was asked for, and more, to the linear part. What lies beyond the frame need not be.
func still() *code {
	c := newCode(fnStill)
	enough, whole, moved, done := c.label(), c.label(), c.label(), c.label()
	c.prologue()
	c.ld(asm.R7, sFetchAt, asm.Word)
	c.ld(asm.R0, sFetchN, asm.Word)
	c.emit(asm.Add.Reg(asm.R7, asm.R0))
	c.jif(asm.JGE, asm.R7, pullAtOnce, enough)
	c.imm(asm.R7, pullAtOnce)
	c.mark(enough)
	c.ctx(asm.R8, skbLen)
	c.jreg(asm.JLE, asm.R7, asm.R8, whole)
	c.mov(asm.R7, asm.R8)
	c.mark(whole)
	c.ld(asm.R0, sStable, asm.Word)
	c.jreg(asm.JLE, asm.R7, asm.R0, done)
	c.mov(asm.R1, regSKB)
	c.mov(asm.R2, asm.R7)
	c.helper(asm.FnSkbPullData)
	c.jif(asm.JEq, asm.R0, 0, moved)
	c.sti(sMoving, 1, asm.Word) // there is no memory
	c.ja(done)
	c.mark(moved)
	c.st(sStable, asm.R7, asm.Word)
	c.mark(done)
	c.retImm(0)
	return c
}

// steady refuses a frame that would not leave as it was read.
func (g *gen) steady(c *code, finish label) {
	refused, fine := c.label(), c.label()
	c.ld(asm.R0, sMoving, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, refused)
	g.checksum(c, refused, fine)
	c.mark(refused)
	g.byDefault(c, firewall.ReasonUnsteady, firewall.Drop)
	c.ja(finish)
	c.mark(fine)
}

// skbLayout is where struct sk_buff has what __sk_buff does not show, by the kernel's BTF.
type skbLayout struct {
	known       bool
	summed, bit int // the byte and the bit of ip_summed, two bits
	start       int // csum_start, and csum_offset behind it, uint16 each
	head, data  int // pointers
	route       int // _skb_refdst, a pointer with flags

	// cast is the number of bpf_cast_to_kern_ctx, by which all that is read in place: that
	// costs nothing, and bpf_probe_read_kernel more than to judge a frame. 0 if there is none.
	cast int64
}

// span is the part that holds what every frame is asked for.
func (l skbLayout) span() (from, n int) {
	from = min(l.route, l.summed)
	return from, max(l.route+8, l.summed+1) - from
}

// spanRoom is how much of it there is room for; a kernel that spreads it further tells nothing.
const spanRoom = 64

// Places on main's stack.
const (
	kStart  = -104
	kHead   = -112
	kData   = -120
	kOrphan = -124 // 1 if no socket sent the frame, and the IP stack did not
	kSpan   = -192
)

// look copies what every frame is asked for to the stack.
func (g *gen) look(c *code, fail label) {
	l := g.opt.skb
	if l.cast == 0 {
		from, n := l.span()
		g.peek(c, kSpan, from, n, fail)
		return
	}
	g.peek(c, g.seen(l.route), l.route, 8, fail)
	g.peek(c, g.seen(l.summed), l.summed, 1, fail)
}

// seen is where the stack has a byte of struct sk_buff, after look.
func (g *gen) seen(at int) int16 {
	from, _ := g.opt.skb.span()
	return int16(kSpan + at - from)
}

const checksumPartial = 3

// checksum goes to fine unless the kernel will write a checksum where there is none. The IP stack's
// own sockets say truly where.
func (g *gen) checksum(c *code, refused, fine label) {
	foreign := c.label()
	if g.opt.AllSenders || g.opt.PerInterface {
		c.emit(asm.LoadMem(asm.R1, regSKB, skbSK, asm.DWord))
		c.jif(asm.JEq, asm.R1, 0, foreign)
		c.emit(asm.LoadMem(asm.R0, asm.R1, 4, asm.Word)) // struct bpf_sock, family
		c.jif(asm.JEq, asm.R0, afINET, fine)
		c.jif(asm.JEq, asm.R0, afINET6, fine)
	}
	c.mark(foreign)
	l := g.opt.skb
	if !l.known {
		g.checksumBlind(c, refused, fine)
		return
	}
	if g.opt.AllSenders || g.opt.PerInterface {
		g.look(c, refused)
	}
	c.emit(asm.LoadMem(asm.R0, asm.RFP, g.seen(l.summed), asm.Byte), asm.RSh.Imm(asm.R0, int32(l.bit)), asm.And.Imm(asm.R0, 3))
	c.jif(asm.JNE, asm.R0, checksumPartial, fine)
	g.peek(c, kStart, l.start, 4, refused)
	g.peek(c, kHead, l.head, 8, refused)
	g.peek(c, kData, l.data, 8, refused)
	// R7 = where in the frame the sum begins, R8 = how far behind it is written
	c.emit(asm.LoadMem(asm.R7, asm.RFP, kHead, asm.DWord), asm.LoadMem(asm.R0, asm.RFP, kStart, asm.Half), asm.Add.Reg(asm.R7, asm.R0))
	c.emit(asm.LoadMem(asm.R0, asm.RFP, kData, asm.DWord), asm.Sub.Reg(asm.R7, asm.R0))
	c.ld(asm.R0, sShift, asm.Word)
	c.emit(asm.Add.Reg(asm.R7, asm.R0), asm.LoadMem(asm.R8, asm.RFP, kStart+2, asm.Half))
	g.isChecksum(c, refused, fine)
}

// peek copies bytes of struct sk_buff to the stack; by cast, those of one member.
func (g *gen) peek(c *code, to int16, from, n int, fail label) {
	if g.opt.skb.cast != 0 {
		size := map[int]asm.Size{1: asm.Byte, 4: asm.Word, 8: asm.DWord}[n]
		c.mov(asm.R1, regSKB)
		c.emit(callKernel(g.opt.skb.cast))
		c.emit(asm.LoadMem(asm.R0, asm.R0, int16(from), size), asm.StoreMem(asm.RFP, to, asm.R0, size))
		return
	}
	c.mov(asm.R1, asm.RFP)
	c.emit(asm.Add.Imm(asm.R1, int32(to)))
	c.imm(asm.R2, uint64(n))
	c.mov(asm.R3, regSKB)
	c.emit(asm.Add.Imm(asm.R3, int32(from)))
	c.helper(asm.FnProbeReadKernel)
	c.jif(asm.JNE, asm.R0, 0, fail)
}

// callKernel calls a function of the kernel by its number in the kernel's BTF.
func callKernel(id int64) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: id}
}

// isChecksum goes to fine if R8 bytes behind R7 stands the checksum of UDP or TCP, and else on or to refused.
func (g *gen) isChecksum(c *code, refused, fine label) {
	noUDP, ipv6, tcp := c.label(), c.label(), c.label()
	c.testBits(sHas, 1<<filter.LayerUDP, noUDP)
	c.ld(asm.R0, layerAt(filter.LayerUDP), asm.Word)
	c.jreg(asm.JNE, asm.R0, asm.R7, refused)
	c.jif(asm.JEq, asm.R8, 6, fine)
	c.ja(refused)
	c.mark(noUDP)
	c.jif(asm.JNE, asm.R8, 16, refused)
	c.ld(asm.R0, sEther, asm.Word)
	c.ld(asm.R2, sNetAt, asm.Word)
	c.jif(asm.JEq, asm.R0, etherIPv6, ipv6)
	c.jif(asm.JNE, asm.R0, etherIPv4, refused)
	c.ldbe(asm.R0, sNet+6, 2)
	c.emit(asm.And.Imm(asm.R0, 0x3fff)) // fragments
	c.jif(asm.JNE, asm.R0, 0, refused)
	c.ld(asm.R0, sNet, asm.Byte)
	c.emit(asm.And.Imm(asm.R0, 15), asm.LSh.Imm(asm.R0, 2), asm.Add.Reg(asm.R2, asm.R0))
	c.ld(asm.R0, sNet+9, asm.Byte)
	c.ja(tcp)
	c.mark(ipv6)
	c.emit(asm.Add.Imm(asm.R2, 40))
	c.ld(asm.R0, sNet+6, asm.Byte)
	c.mark(tcp)
	c.jif(asm.JNE, asm.R0, 6, refused)
	c.jreg(asm.JEq, asm.R2, asm.R7, fine)
}

// checksumBlind is for a kernel that does not tell how struct sk_buff is laid out: a frame of no IP
// socket whose checksum is to be written later is refused, wherever that would be. A level can be
// given only to a frame without (__skb_incr_checksum_unnecessary), and is taken back.
func (g *gen) checksumBlind(c *code, refused, fine label) {
	for _, what := range []uint64{csumLevelInc, csumLevelQuery, csumLevelDec} {
		c.mov(asm.R1, regSKB)
		c.imm(asm.R2, what)
		c.helper(asm.FnCsumLevel)
		if what == csumLevelQuery {
			c.mov(asm.R7, asm.R0)
		}
	}
	c.jump(asm.Instruction{OpCode: asm.JSGE.Op(asm.ImmSource), Dst: asm.R7}, fine)
	c.ja(refused)
}

// BPF_CSUM_LEVEL_… of include/uapi/linux/bpf.h, and address families.
const (
	csumLevelQuery = 0
	csumLevelInc   = 1
	csumLevelDec   = 2

	afINET  = 2
	afINET6 = 10
)
