package seal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// open32 says why 32-bit calls pass a seal whose program for them is attached or is not; "" if they do not.
func open32(attached bool) string {
	err := active()
	if !attached {
		p, lack := load32()
		if lack == nil {
			p.Close()
			lack = errors.New("the program for 32-bit calls is not attached: seal it again")
		}
		err = lack
	}
	if err == nil || !compat() {
		return ""
	}
	return err.Error()
}

// compat says whether the kernel has 32-bit system calls, or may have. Its symbols tell, on
// every architecture, and to everybody; what they do not tell is that those of i386 were turned off at boot
// (ia32_emulation=0). It is a variable for tests.
var compat = sync.OnceValue(func() bool {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return true
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	some := false
	for lines.Scan() {
		some = true
		if bytes.Contains(lines.Bytes(), []byte("compat_sys_")) {
			return true
		}
	}
	return !some || lines.Err() != nil
})

// active says whether the kernel asks programs at LSM hooks: where "bpf" is not among the
// LSMs, it takes them and never runs them. It is a variable for tests.
var active = func() error {
	const remedy = "add bpf to the list of lsm= on the kernel's command line (CONFIG_LSM)"
	list, err := modules()
	if err != nil {
		return fmt.Errorf("cannot tell whether bpf is among the active LSMs, without which 32-bit calls pass (mount -t securityfs securityfs /sys/kernel/security): %w", err)
	}
	if !list {
		return fmt.Errorf("bpf is not among the active LSMs: programs at LSM hooks are %w: %s", ErrNotSupported, remedy)
	}
	return nil
}

// modules says whether bpf is among the active LSMs, by the system call of Linux 6.8 or the file.
func modules() (bool, error) {
	const lsmIDBPF = 109
	var ids [64]uint64
	size := uint32(unsafe.Sizeof(ids))
	n, _, errno := unix.Syscall(unix.SYS_LSM_LIST_MODULES, uintptr(unsafe.Pointer(&ids)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 {
		return slices.Contains(ids[:n], lsmIDBPF), nil
	}
	b, err := os.ReadFile("/sys/kernel/security/lsm")
	return slices.Contains(strings.Split(strings.TrimSpace(string(b)), ","), "bpf"), err
}
