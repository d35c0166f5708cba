package seal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// load32 gives the program for 32-bit calls to the kernel. It is a variable for tests of kernels
// that have no place for it.
var load32 = func() (*ebpf.Program, error) {
	p, err := loadLSM("bpf_lsm_socket_setsockopt")
	if err != nil {
		// Whatever it is, the other program closes most; one without rights fails before, at that.
		return nil, fmt.Errorf("a program for 32-bit calls at the LSM hook socket_setsockopt (Linux 6.0, CONFIG_BPF_LSM, CONFIG_DEBUG_INFO_BTF, CAP_PERFMON) is %w: %w", ErrNotSupported, err)
	}
	return p, nil
}

func loadLSM(hook string) (*ebpf.Program, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	var fn *btf.Func
	if err := spec.TypeByName(hook, &fn); err != nil {
		return nil, fmt.Errorf("look for %s in the kernel: %w", hook, err)
	}
	id, err := spec.TypeID(fn)
	if err != nil {
		return nil, fmt.Errorf("look for %s in the kernel: %w", hook, err)
	}
	fd, err := progLoad(instructions32(native(spec, runtime.GOARCH)), uint32(id))
	if err != nil {
		return nil, fmt.Errorf("load the program: %w", err)
	}
	return ebpf.NewProgramFromFD(fd)
}

// progLoadAttr is union bpf_attr for BPF_PROG_LOAD, as far as the hook's type.
type progLoadAttr struct {
	progType, insnCnt           uint32
	insns, license              uint64
	logLevel, logSize           uint32
	logBuf                      uint64
	kernVersion, progFlags      uint32
	progName                    [16]byte
	progIfindex, expectedAttach uint32
	progBTF, funcInfoSize       uint32
	funcInfo                    uint64
	funcInfoCnt, lineInfoSize   uint32
	lineInfo                    uint64
	lineInfoCnt, attachBTFID    uint32
}

// progLoad loads for BPF_LSM_CGROUP, for which cilium/ebpf's NewProgram does not say which
// hook it is (it leaves attach_btf_id 0).
func progLoad(insns asm.Instructions, hook uint32) (int, error) {
	order := binary.ByteOrder(binary.LittleEndian)
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = binary.BigEndian
	}
	var code bytes.Buffer
	if err := insns.Marshal(&code, order); err != nil {
		return -1, err
	}
	license := []byte("Dual MIT/GPL\x00") // an LSM's has to be
	attr := progLoadAttr{
		progType: uint32(ebpf.LSM), expectedAttach: uint32(ebpf.AttachLSMCgroup), attachBTFID: hook,
		insnCnt: uint32(code.Len() / asm.InstructionSize),
	}
	copy(attr.progName[:], program32Name)
	var pin runtime.Pinner // the kernel has addresses that Go does not see
	defer pin.Unpin()
	pin.Pin(&code.Bytes()[0])
	pin.Pin(&license[0])
	attr.insns = uint64(uintptr(unsafe.Pointer(&code.Bytes()[0])))
	attr.license = uint64(uintptr(unsafe.Pointer(&license[0])))
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
