package bpf

import (
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// kernelSKB reads how this kernel lays struct sk_buff out, if it tells (CONFIG_DEBUG_INFO_BTF).
var kernelSKB = sync.OnceValue(func() (l skbLayout) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return l
	}
	var skb *btf.Struct
	if err := spec.TypeByName("sk_buff", &skb); err != nil {
		return l
	}
	found := map[string]btf.Bits{}
	places(skb.Members, 0, found)
	for _, name := range []string{"_skb_refdst", "ip_summed", "csum_start", "csum_offset", "head", "data"} {
		if _, ok := found[name]; !ok {
			return l
		}
	}
	l = skbLayout{known: found["csum_offset"] == found["csum_start"]+16, summed: int(found["ip_summed"] / 8), bit: int(found["ip_summed"] % 8),
		start: int(found["csum_start"] / 8), head: int(found["head"] / 8), data: int(found["data"] / 8), route: int(found["_skb_refdst"] / 8)}
	if _, n := l.span(); n > spanRoom {
		l.known = false
	}
	l.cast = kernelCast(spec)
	return l
})

// kernelCast is the number of bpf_cast_to_kern_ctx in the kernel's BTF, 0 if a program cannot
// call it here: before Linux 6.2, or for want of CAP_BPF.
func kernelCast(spec *btf.Spec) int64 {
	var fn *btf.Func
	if spec.TypeByName("bpf_cast_to_kern_ctx", &fn) != nil {
		return 0
	}
	id, err := spec.TypeID(fn)
	if err != nil {
		return 0
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: license, Instructions: asm.Instructions{
		callKernel(int64(id)), asm.Mov.Imm(asm.R0, 0), asm.Return(),
	}})
	if err != nil {
		return 0
	}
	p.Close()
	return int64(id)
}

// places finds members, those of anonymous structs and of groups included.
func places(members []btf.Member, at btf.Bits, found map[string]btf.Bits) {
	for _, m := range members {
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Struct:
			if m.Name == "" || m.Name == "headers" {
				places(t.Members, at+m.Offset, found)
			}
			continue
		case *btf.Union:
			places(t.Members, at+m.Offset, found)
			continue
		}
		if _, ok := found[m.Name]; !ok {
			found[m.Name] = at + m.Offset
		}
	}
}
