package bpf

import (
	"sync"

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
	for _, name := range []string{"ip_summed", "csum_start", "csum_offset", "head", "data"} {
		if _, ok := found[name]; !ok {
			return l
		}
	}
	return skbLayout{known: found["csum_offset"] == found["csum_start"]+16, summed: int(found["ip_summed"] / 8), bit: int(found["ip_summed"] % 8),
		start: int(found["csum_start"] / 8), head: int(found["head"] / 8), data: int(found["data"] / 8)}
})

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
