package bpf

import (
	"github.com/cilium/ebpf/asm"

	"github.com/postern-fw/postern/firewall/filter"
	"github.com/postern-fw/postern/proto/frame"
)

// Offsets in struct __sk_buff (include/uapi/linux/bpf.h), 4 bytes each.
const (
	skbLen            = 0
	skbPktType        = 4
	skbMark           = 8
	skbVLANPresent    = 20
	skbVLANTCI        = 24
	skbVLANProto      = 28
	skbIngressIfindex = 36
	skbIfindex        = 40
	skbData           = 76
	skbDataEnd        = 80
	skbSK             = 168
	skbGSOSize        = 176
)

func (c *code) ctx(dst asm.Register, off int) {
	c.emit(asm.LoadMem(dst, regSKB, int16(off), asm.Word))
}

// fetch copies R4 bytes of the frame, 1 to most, from R2 on to the scratch area
// at off. R2 counts in the frame as it will be sent; no byte of a tag that was
// put back may be asked for. A frame that is too short leaves zeros.
func (c *code) fetch(off int, most uint64) {
	c.ld(asm.R0, sShift, asm.Word)
	c.emit(asm.Sub.Reg(asm.R2, asm.R0))
	c.fetchRaw(off, most)
}

// fetchAll is fetch of a known number of bytes, without checks: the verifier takes
// its time over what it finds to be superfluous.
func (c *code) fetchAll(off, n int) {
	c.ld(asm.R0, sShift, asm.Word)
	c.emit(asm.Sub.Reg(asm.R2, asm.R0))
	c.imm(asm.R4, uint64(n))
	c.still(func() { c.imm(asm.R4, uint64(n)) })
	c.mov(asm.R1, regSKB)
	c.ptr(asm.R3, off)
	c.helper(asm.FnSkbLoadBytes)
}

func (c *code) fetchRaw(off int, most uint64) {
	skip := c.label()
	c.jif(asm.JEq, asm.R4, 0, skip)
	c.min(asm.R4, most)
	c.still(func() {
		c.ld(asm.R4, sFetchN, asm.Word)
		c.jif(asm.JEq, asm.R4, 0, skip)
		c.min(asm.R4, most)
	})
	c.mov(asm.R1, regSKB)
	c.ptr(asm.R3, off)
	c.helper(asm.FnSkbLoadBytes)
	c.mark(skip)
}

// malformed notes that a layer is; the first cause stays.
func (c *code) malformed(l filter.Layer, cause filter.Cause) {
	seen := c.label()
	c.or(sBad, 1<<l)
	c.ld(asm.R0, sCause, asm.Word)
	c.jif(asm.JNE, asm.R0, 0, seen)
	c.sti(sCause, int64(cause), asm.Word)
	c.mark(seen)
}

// linkBad is malformed for the link layer, whose last cause stays: it is the
// first layer.
func (c *code) linkBad(cause frame.Cause) {
	c.sti(sBad, 1<<filter.LayerEth, asm.Word)
	c.sti(sCause, int64(filter.FrameCause(cause)), asm.Word)
}

// head loads the frame's first bytes and its length, and puts a tag that the
// kernel keeps beside the frame back where it will be sent.
func (g *gen) head(c *code) {
	tagged, done := c.label(), c.label()
	c.imm(asm.R0, 0) // from a register, which makes for short instructions
	for off := sClear; off < sClearEnd; off += 8 {
		c.st(off, asm.R0, asm.DWord)
	}
	c.ctx(asm.R7, skbLen)
	c.st(sLen, asm.R7, asm.Word)
	g.linearPart(c)
	c.ctx(asm.R0, skbVLANPresent)
	c.jif(asm.JNE, asm.R0, 0, tagged)
	c.sti(sShift, 0, asm.Word)
	if !g.opt.scattered {
		c.linear(done)
	}
	c.emit(asm.Mov.Imm(asm.R2, 0))
	c.mov(asm.R4, asm.R7)
	c.fetchRaw(sHead, headLen)
	c.ja(done)

	c.mark(tagged)
	c.sti(sShift, 4, asm.Word)
	c.emit(asm.Mov.Imm(asm.R2, 0))
	c.mov(asm.R4, asm.R7)
	c.fetchRaw(sHead, 12)
	c.ctx(asm.R0, skbVLANProto) // network order already
	c.st(sHead+12, asm.R0, asm.Half)
	c.ctx(asm.R0, skbVLANTCI)
	c.emit(asm.HostTo(asm.BE, asm.R0, asm.Half))
	c.st(sHead+14, asm.R0, asm.Half)
	short := c.label()
	c.mov(asm.R4, asm.R7)
	c.jif(asm.JLT, asm.R4, 12, short)
	c.emit(asm.Sub.Imm(asm.R4, 12), asm.Mov.Imm(asm.R2, 12))
	c.fetchRaw(sHead+16, headLen-16)
	c.mark(short)
	c.emit(asm.Add.Imm(asm.R7, 4))
	c.st(sLen, asm.R7, asm.Word)
	for i := 0; i < 16; i += 8 {
		c.ld(asm.R0, sHead+i, asm.DWord)
		c.st(sFirst+i, asm.R0, asm.DWord)
	}
	c.mark(done)
}

// linear copies the head from the linear part, which costs a third of what bpf_skb_load_bytes does, and
// goes to done: that of frames that are long enough, and of those of two lengths that are
// common, the least of Ethernet and ARP without padding.
func (c *code) linear(done label) {
	c.ctx(asm.R2, skbData)
	c.ctx(asm.R3, skbDataEnd)
	for _, n := range []int{headLen, 60, 42} {
		other := c.label()
		if n != headLen {
			c.jif(asm.JNE, asm.R7, uint64(n), other)
		}
		c.mov(asm.R1, asm.R2)
		c.emit(asm.Add.Imm(asm.R1, int32(n)))
		c.jreg(asm.JGT, asm.R1, asm.R3, other)
		at := 0
		for _, size := range []asm.Size{asm.DWord, asm.Word, asm.Half} {
			for ; at+size.Sizeof() <= n; at += size.Sizeof() {
				c.emit(asm.LoadMem(asm.R0, asm.R2, int16(at), size))
				c.st(sHead+at, asm.R0, size)
			}
		}
		c.ja(done)
		c.mark(other)
	}
}

// etherLLC is the EtherType behind which a jumbo frame has its LLC header.
const etherLLC = 0x8870

// link8023 decodes the link layer as frame.Frame.Decode does: it goes to net with
// sEther, sNetAt and sNetLen set and the network layer's bytes at sNet, to done
// where there is no such layer.
//
// R7 is where what is left of the frame begins, R8 the type or length before
// it, R4 where the frame ends, R3 the number of tags, R2 whether SNAP was seen.
func (c *code) link8023(net, done label) {
	ok, tags, untagged, end, fast, stored := c.label(), c.label(), c.label(), c.label(), c.label(), c.label()
	c.ld(asm.R4, sLen, asm.Word)
	c.sti(sHas, 1<<filter.LayerFrame, asm.Word)
	c.st(layerLen(filter.LayerFrame), asm.R4, asm.Word)
	c.sti(layerAt(filter.LayerFrame), 0, asm.Word)
	c.jif(asm.JGE, asm.R4, frame.HeaderLen, ok)
	c.linkBad(frame.CauseShortHeader)
	c.ja(done)
	c.mark(ok)
	c.sti(sHas, 1<<filter.LayerFrame|1<<filter.LayerEth, asm.Word)
	c.sti(layerLen(filter.LayerEth), frame.HeaderLen, asm.Word)
	c.sti(layerAt(filter.LayerEth), 0, asm.Word)
	c.ldbe(asm.R8, sHead+12, 2)
	c.imm(asm.R7, frame.HeaderLen)
	c.jif(asm.JEq, asm.R8, 0x0806, fast)
	c.jif(asm.JEq, asm.R8, 0x0800, fast)
	c.jif(asm.JEq, asm.R8, 0x86dd, fast)
	c.imm(asm.R3, 0)
	c.imm(asm.R2, 0)

	c.mark(tags)
	c.tag(untagged, tags, done)

	c.mark(untagged)
	nested, llc, typed := c.label(), c.label(), c.label()
	c.jif(asm.JNE, asm.R2, 0, end)
	c.jif(asm.JEq, asm.R8, etherLLC, llc)
	c.jif(asm.JGE, asm.R8, 0x0600, end)
	c.jif(asm.JEq, asm.R8, 0, end)
	c.mark(llc)
	c.llc(tags, stored, nested, done)

	// Behind SNAP there is no second LLC header.
	c.mark(end)
	c.jif(asm.JEq, asm.R2, 0, typed)
	c.jif(asm.JEq, asm.R8, etherLLC, nested)
	c.jif(asm.JGE, asm.R8, 0x0600, typed)
	c.mark(nested)
	c.linkBad(frame.CauseNestedLength)
	c.ja(done)
	c.mark(typed)
	c.jif(asm.JNE, asm.R8, 0, stored)
	c.jreg(asm.JGE, asm.R7, asm.R4, stored)
	c.headAt()
	c.emit(asm.LoadMem(asm.R0, asm.R1, sHead, asm.Byte), asm.And.Imm(asm.R0, 0xfe))
	c.jif(asm.JNE, asm.R0, 0xaa, stored)
	c.linkBad(frame.CauseBadLength)
	c.mark(stored)
	c.st(sEther, asm.R8, asm.Word)
	c.st(sNetAt, asm.R7, asm.Word)
	c.emit(asm.Sub.Reg(asm.R4, asm.R7))
	c.st(sNetLen, asm.R4, asm.Word)
	c.netBytes()
	c.ja(net)

	c.mark(fast)
	c.st(sEther, asm.R8, asm.Word)
	c.sti(sNetAt, frame.HeaderLen, asm.Word)
	c.emit(asm.Sub.Imm(asm.R4, frame.HeaderLen))
	c.st(sNetLen, asm.R4, asm.Word)
	c.ja(net)
}

// netBytes brings the network layer to sNet, where it did not begin there.
func (c *code) netBytes() {
	there := c.label()
	c.ld(asm.R2, sNetAt, asm.Word)
	c.jif(asm.JEq, asm.R2, frame.HeaderLen, there)
	c.ld(asm.R4, sNetLen, asm.Word)
	c.fetch(sNet, netLen)
	c.mark(there)
}

// headAt makes R1 point to the head, so that R1+sHead is where R7 says.
func (c *code) headAt() {
	c.mov(asm.R1, regScratch)
	c.emit(asm.Add.Reg(asm.R1, asm.R7))
}

// tag reads the tag whose TPID is R8 and goes to again with the type behind it,
// or to untagged if R8 is no TPID.
func (c *code) tag(untagged, again, done label) {
	isTag, room, whole, some := c.label(), c.label(), c.label(), c.label()
	for _, tpid := range []uint64{0x8100, 0x88a8, 0x9100, 0x9200, 0x9300} {
		c.jif(asm.JEq, asm.R8, tpid, isTag)
	}
	c.ja(untagged)
	c.mark(isTag)
	c.jif(asm.JLT, asm.R3, frame.MaxTags, room)
	c.linkBad(frame.CauseTooManyTags)
	c.ja(done)
	c.mark(room)
	c.mov(asm.R0, asm.R4)
	c.emit(asm.Sub.Reg(asm.R0, asm.R7)) // what is left
	c.mov(asm.R8, asm.R0)
	c.jif(asm.JGE, asm.R0, 4, some)
	c.linkBad(frame.CauseShortTag)
	c.jif(asm.JLT, asm.R8, 2, done)
	c.mark(some)
	// R5 = the tag's place in the tables.
	c.headAt()
	c.emit(asm.LoadMem(asm.R1, asm.R1, sHead, asm.Word))
	c.mov(asm.R5, asm.R3)
	c.emit(asm.LSh.Imm(asm.R5, 2))
	c.emit(asm.Add.Reg(asm.R5, regScratch))
	c.emit(asm.StoreMem(asm.R5, sTags, asm.R1, asm.Word))
	c.emit(asm.StoreMem(asm.R5, sTagAt, asm.R7, asm.Word))
	c.emit(asm.StoreImm(asm.R5, sTagType, 0, asm.Word))
	c.emit(asm.Add.Imm(asm.R3, 1))
	c.st(sNTags, asm.R3, asm.Word)
	// How much of it there is counts to the frame's end, not the 802.3 length's.
	c.ld(asm.R0, sLen, asm.Word)
	c.emit(asm.Sub.Reg(asm.R0, asm.R7))
	c.min(asm.R0, 4)
	c.emit(asm.StoreMem(asm.R5, sTagLen, asm.R0, asm.Word))
	c.jif(asm.JGE, asm.R8, 4, whole)
	c.ja(done)
	c.mark(whole)
	c.headAt()
	c.ldbeAt(asm.R8, asm.R1, sHead+2, 2)
	c.emit(asm.StoreMem(asm.R5, sTagType, asm.R8, asm.Word))
	c.emit(asm.Add.Imm(asm.R7, 4))
	c.ja(again)
}

// llc reads the 802.3 length R8, unless that is etherLLC, the LLC header and SNAP
// behind it. It goes to tags if there are tags behind SNAP, to nested if there is a
// second LLC header, to stored with R8, R7 and R4 set if neither.
func (c *code) llc(tags, stored, nested, done label) {
	possible, within, short3, headed, snap, sapped, whole := c.label(), c.label(), c.label(), c.label(), c.label(), c.label(), c.label()
	tooShort, noted, header := c.label(), c.label(), c.label()
	c.mov(asm.R5, asm.R4)
	c.emit(asm.Sub.Reg(asm.R5, asm.R7)) // what is left
	c.headAt()
	c.jif(asm.JEq, asm.R8, etherLLC, header)
	c.jif(asm.JLE, asm.R8, 1500, possible)
	c.linkBad(frame.CauseBadLength)
	c.ja(done)
	c.mark(possible)
	// Novell's 802.3 has no LLC header and carries nothing that is read.
	notRaw := c.label()
	c.jif(asm.JLT, asm.R5, 2, notRaw)
	c.emit(asm.LoadMem(asm.R0, asm.R1, sHead, asm.Half))
	c.jif(asm.JNE, asm.R0, 0xffff, notRaw)
	c.jreg(asm.JLE, asm.R8, asm.R5, done)
	c.linkBad(frame.CauseBadLength)
	c.ja(done)
	c.mark(notRaw)
	c.jreg(asm.JLE, asm.R8, asm.R5, within)
	c.linkBad(frame.CauseBadLength)
	c.ja(header)
	c.mark(within)
	c.mov(asm.R5, asm.R8)
	c.mov(asm.R4, asm.R7)
	c.emit(asm.Add.Reg(asm.R4, asm.R8))
	c.mark(header)
	// R5 is what is left, R8 the length of the header.
	c.imm(asm.R8, 3)
	c.jif(asm.JLT, asm.R5, 3, short3)
	c.emit(asm.LoadMem(asm.R0, asm.R1, sHead+2, asm.Byte), asm.And.Imm(asm.R0, 3))
	c.jif(asm.JEq, asm.R0, 3, short3)
	c.imm(asm.R8, 4)
	c.mark(short3)
	for i := 0; i < 16; i += 8 {
		c.emit(asm.LoadMem(asm.R0, asm.R1, int16(sHead+i), asm.DWord))
		c.st(sLLC+i, asm.R0, asm.DWord)
	}
	c.st(layerAt(filter.LayerLLC), asm.R7, asm.Word)
	c.jreg(asm.JLT, asm.R5, asm.R8, tooShort)
	for i := range 2 {
		c.emit(asm.LoadMem(asm.R0, asm.R1, int16(sHead+i), asm.Byte), asm.And.Imm(asm.R0, 0xfe))
		c.jif(asm.JNE, asm.R0, 0xaa, sapped)
	}
	c.ja(snap)

	c.mark(sapped)
	c.or(sHas, 1<<filter.LayerLLC)
	c.st(layerLen(filter.LayerLLC), asm.R8, asm.Word)
	c.emit(asm.Add.Reg(asm.R7, asm.R8))
	c.emit(asm.LoadMem(asm.R0, asm.R1, sHead, asm.Byte), asm.And.Imm(asm.R0, 0xfe))
	notHalf := c.label()
	c.jif(asm.JNE, asm.R0, 0xaa, notHalf)
	c.malformed(filter.LayerEth, filter.FrameCause(frame.CauseHalfSNAP))
	c.ja(done)
	c.mark(notHalf)
	c.jif(asm.JNE, asm.R0, 0x06, done)
	c.imm(asm.R8, 0x0800) // RFC 948
	c.ja(stored)

	c.mark(snap)
	c.emit(asm.Add.Imm(asm.R8, 5))
	c.jreg(asm.JGE, asm.R5, asm.R8, headed)
	c.mark(tooShort)
	c.jif(asm.JEq, asm.R5, 0, noted)
	c.or(sHas, 1<<filter.LayerLLC)
	c.st(layerLen(filter.LayerLLC), asm.R5, asm.Word)
	c.mark(noted)
	c.malformed(filter.LayerEth, filter.FrameCause(frame.CauseShortLLC))
	c.ja(done)

	c.mark(headed)
	c.or(sHas, 1<<filter.LayerLLC)
	c.or(sFlags, flagSNAP)
	c.st(layerLen(filter.LayerLLC), asm.R8, asm.Word)
	c.emit(asm.Add.Reg(asm.R1, asm.R8), asm.Add.Reg(asm.R7, asm.R8))
	// R1+sHead is now behind SNAP.
	c.emit(asm.LoadMem(asm.R0, asm.R1, sHead-5, asm.Word), asm.HostTo(asm.BE, asm.R0, asm.Word), asm.RSh.Imm(asm.R0, 8))
	c.st(sOUI, asm.R0, asm.Word)
	c.ldbeAt(asm.R8, asm.R1, sHead-2, 2)
	c.st(sSNAP, asm.R8, asm.Word)
	c.jif(asm.JEq, asm.R0, 0, whole)
	c.jif(asm.JNE, asm.R0, 0x0000f8, done) // and no EtherType
	c.mark(whole)
	c.imm(asm.R2, 1)
	c.jif(asm.JEq, asm.R8, etherLLC, nested)
	for _, tpid := range []uint64{0x8100, 0x88a8, 0x9100, 0x9200, 0x9300} {
		c.jif(asm.JEq, asm.R8, tpid, tags)
	}
	c.ja(stored)
}
