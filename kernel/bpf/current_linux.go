package bpf

import (
	"errors"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
)

// tellsSender says whether this kernel lets programs at network devices ask who runs: 6.12 does not,
// 6.18 does. Where that cannot be found out, loading will say it.
var tellsSender = sync.OnceValue(func() bool {
	for _, fn := range []asm.BuiltinFunc{asm.FnGetCurrentPidTgid, asm.FnGetCurrentUidGid, asm.FnGetCurrentComm} {
		if errors.Is(features.HaveProgramHelper(ebpf.SchedCLS, fn), ebpf.ErrNotSupported) {
			return false
		}
	}
	return true
})
