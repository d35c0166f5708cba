package seal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is its own child, in a cgroup: the first argument says what it does there.
func TestMain(m *testing.M) {
	if os.Getenv("SEAL_CHILD") == "" {
		os.Exit(m.Run())
	}
	result, err := children[os.Getenv("SEAL_CHILD")]()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

var children = map[string]func() (map[string]string, error){
	"options": func() (map[string]string, error) { return tryOptions(-1) },
	"given":   func() (map[string]string, error) { return tryOptions(3) },
	"race":    race,
	"calls32": calls32,
	"install": func() (map[string]string, error) {
		return nil, Seal{Cgroup: os.Getenv("SEAL_CGROUP"), Pin: os.Getenv("SEAL_PIN")}.Install()
	},
	"unprivileged": unprivileged,
}

// hurry keeps the race detector from having each child sleep before it ends.
const hurry = "GORACE=atexit_sleep_ms=0"

// child runs itself in a cgroup ("" is the test's own) and returns what it found.
func child(t testing.TB, what, cgroup string, files []*os.File, env ...string) map[string]string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "SEAL_CHILD="+what, hurry), env...)
	cmd.ExtraFiles = files
	cmd.Stderr = os.Stderr
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		must(t, err)
		defer dir.Close()
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child %q in cgroup %q: %v", what, cgroup, err)
	}
	var result map[string]string
	must(t, json.Unmarshal(out, &result))
	return result
}

// tryOptions sets options of a packet socket, its own or the given one, and of an AF_XDP socket.
func tryOptions(fd int) (map[string]string, error) {
	if fd < 0 {
		var err error
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return nil, err
		}
	}
	xdp, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, err
	}
	umem, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	reg := unix.XDPUmemReg{Addr: uint64(uintptr(unsafe.Pointer(&umem[0]))), Len: 1 << 16, Size: 4096}
	got := map[string]string{}
	try := func(name string, fd, level, option int, value any) {
		got[name] = "done"
		if errno := set(fd, level, option, value); errno != 0 {
			got[name] = unix.ErrnoName(errno)
		}
	}
	try("bypass", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, int32(1))
	try("bypass by a negative value", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, int32(-1))
	try("bypass by a high byte", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, int32(1<<30))
	try("bypass too long", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, [8192]byte{1})
	try("bypass too short", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, [3]byte{1})
	try("no bypass", fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, int32(0))
	try("version", fd, unix.SOL_PACKET, unix.PACKET_VERSION, int32(unix.TPACKET_V3))
	try("send buffer", fd, unix.SOL_SOCKET, unix.SO_SNDBUF, int32(1<<16))
	try("send buffer by 8 KiB", fd, unix.SOL_SOCKET, unix.SO_SNDBUF, [8192]byte{0, 0, 1})
	try("same number, other level", fd, unix.SOL_SOCKET, unix.PACKET_QDISC_BYPASS, unix.Timeval{Sec: 1}) // SO_RCVTIMEO
	try("xdp umem", xdp, unix.SOL_XDP, unix.XDP_UMEM_REG, reg)
	try("xdp fill ring", xdp, unix.SOL_XDP, unix.XDP_UMEM_FILL_RING, int32(64))
	try("xdp completion ring", xdp, unix.SOL_XDP, unix.XDP_UMEM_COMPLETION_RING, int32(64))
	try("xdp transmit ring", xdp, unix.SOL_XDP, unix.XDP_TX_RING, int32(64))
	return got, nil
}

func set(fd, level, option int, value any) syscall.Errno {
	var p unsafe.Pointer
	var n uintptr
	switch v := value.(type) {
	case int32:
		p, n = unsafe.Pointer(&v), unsafe.Sizeof(v)
	case [3]byte:
		p, n = unsafe.Pointer(&v), unsafe.Sizeof(v)
	case [8192]byte:
		p, n = unsafe.Pointer(&v), unsafe.Sizeof(v)
	case unix.Timeval:
		p, n = unsafe.Pointer(&v), unsafe.Sizeof(v)
	case unix.XDPUmemReg:
		p, n = unsafe.Pointer(&v), unsafe.Sizeof(v)
	}
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(p), n, 0)
	return errno
}

// race exchanges the value while the kernel looks at it.
func race() (map[string]string, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, err
	}
	var value, done int32
	go func() {
		for atomic.LoadInt32(&done) == 0 {
			atomic.StoreInt32(&value, 1)
			atomic.StoreInt32(&value, 0)
		}
	}()
	defer atomic.StoreInt32(&done, 1)
	counts := map[string]int{}
	for range 20_000 {
		_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS,
			uintptr(unsafe.Pointer(&value)), 4, 0)
		counts[unix.ErrnoName(errno)]++
		if on, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS); err != nil || on != 0 {
			return map[string]string{"bypass": fmt.Sprintf("%d, %v", on, err)}, nil
		}
	}
	return map[string]string{"bypass": "0", "refused": fmt.Sprint(counts["EPERM"] > 0), "done": fmt.Sprint(counts[""] > 0)}, nil
}

func unprivileged() (map[string]string, error) {
	if err := syscall.Setresuid(65534, 65534, 65534); err != nil {
		return nil, err
	}
	err := Probe()
	return map[string]string{"permission": fmt.Sprint(errors.Is(err, fs.ErrPermission)), "error": fmt.Sprint(err)}, nil
}
