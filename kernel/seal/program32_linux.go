package seal

import (
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// program32Name tells our program from others'.
const program32Name = "postern_seal32"

// From the kernel's headers.
const (
	pfIOWorker = 0x10
	pfKthread  = 0x200000
	tsCompat   = 2       // x86, TS_COMPAT
	tif32bit   = 1 << 22 // arm64, _TIF_32BIT
	nativeCall = 54      // x86-64, __NR_setsockopt: x32 has another
)

// instructions32 decide at the LSM hook socket_setsockopt(socket, level, option): 0 refuses with EPERM, 1
// lets go on. native are the instructions that go to "refuse" unless the other program sees the call.
func instructions32(native asm.Instructions) asm.Instructions {
	insns := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 8, asm.DWord),
		asm.JEq.Imm32(asm.R2, unix.SOL_XDP, "refuse"),
		asm.JNE.Imm32(asm.R2, unix.SOL_PACKET, "let go"),
		asm.LoadMem(asm.R2, asm.R1, 16, asm.DWord),
		asm.JNE.Imm32(asm.R2, unix.PACKET_QDISC_BYPASS, "let go"),
	}
	insns = append(insns, native...)
	return append(insns,
		asm.Mov.Imm(asm.R0, 1).WithSymbol("let go"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("refuse"),
		asm.Return(),
	)
}

// native goes to "refuse" unless the call is for certain a native system call. An io_uring that a
// 32-bit call has set up makes 32-bit calls for ever, by whoever submits, by a worker, or
// while a thread comes back from any system call: who uses io_uring is not for certain. Where the
// kernel's types do not tell how to see it, it refuses all.
func native(spec *btf.Spec, arch string) asm.Instructions {
	none := asm.Instructions{asm.Ja.Label("refuse")}
	at := func(of string, path ...string) (int16, bool) { return offset(spec, of, path...) }
	flags, ok := at("task_struct", "flags")
	if !ok {
		return none
	}
	insns := asm.Instructions{
		asm.FnGetCurrentTaskBtf.Call(),
		asm.Mov.Reg(asm.R6, asm.R0),
		asm.LoadMem(asm.R1, asm.R6, flags, asm.Word),
		asm.JSet.Imm(asm.R1, pfIOWorker|pfKthread, "refuse"),
	}
	if ring, ok := at("task_struct", "io_uring"); ok { // CONFIG_IO_URING
		insns = append(insns, asm.LoadMem(asm.R1, asm.R6, ring, asm.DWord), asm.JNE.Imm(asm.R1, 0, "refuse"))
	}
	switch arch {
	case "amd64":
		status, ok1 := at("task_struct", "thread_info", "status")
		number, ok2 := at("pt_regs", "orig_ax")
		if !ok1 || !ok2 {
			return none
		}
		return append(insns,
			asm.LoadMem(asm.R1, asm.R6, status, asm.Word),
			asm.JSet.Imm(asm.R1, tsCompat, "refuse"),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnTaskPtRegs.Call(),
			asm.LoadMem(asm.R1, asm.R0, number, asm.DWord),
			asm.JNE.Imm(asm.R1, nativeCall, "refuse"),
		)
	case "arm64":
		flags, ok := at("task_struct", "thread_info", "flags")
		if !ok {
			return none
		}
		return append(insns, asm.LoadMem(asm.R1, asm.R6, flags, asm.DWord), asm.JSet.Imm(asm.R1, tif32bit, "refuse"))
	}
	return none
}

// offset is that of a member in a structure of the kernel, by way of those it is in.
func offset(spec *btf.Spec, of string, path ...string) (int16, bool) {
	var s *btf.Struct
	if err := spec.TypeByName(of, &s); err != nil {
		return 0, false
	}
	var sum uint32
	for i, name := range path {
		m, at := member(s.Members, name)
		if m == nil || m.BitfieldSize != 0 {
			return 0, false
		}
		sum += at
		if i == len(path)-1 {
			return int16(sum), sum < 1<<15
		}
		var ok bool
		if s, ok = btf.UnderlyingType(m.Type).(*btf.Struct); !ok {
			return 0, false
		}
	}
	return 0, false
}

// member looks into structures and unions without a name too.
func member(members []btf.Member, name string) (*btf.Member, uint32) {
	for i, m := range members {
		if m.Name == name {
			return &members[i], m.Offset.Bytes()
		}
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			inner = t.Members
		case *btf.Union:
			inner = t.Members
		}
		if found, at := member(inner, name); found != nil {
			return found, m.Offset.Bytes() + at
		}
	}
	return nil, 0
}
