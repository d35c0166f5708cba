package i386

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of system calls.
const (
	ioURingSetup = 425
	getpid       = 20
	setsockopt   = 366
)

// machine is the code, and memory that 32 bits reach.
type machine struct {
	call func(number, a, b, c, d, e uintptr) int
	low  []byte
}

// start returns nil where the kernel has no such system calls.
var start = sync.OnceValue(func() *machine {
	code, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil
	}
	// Go's first six arguments are in AX, BX, CX, DI, SI and R8.
	copy(code, []byte{
		0x89, 0xfa, // MOV EDX, EDI
		0x44, 0x89, 0xc7, // MOV EDI, R8D
		0xcd, 0x80, // INT 0x80
		0x48, 0x98, // CDQE
		0xc3, // RET
	})
	entry := unsafe.Pointer(&code[0])
	closure := unsafe.Pointer(&entry)
	m := &machine{call: *(*func(number, a, b, c, d, e uintptr) int)(unsafe.Pointer(&closure))}
	m.low, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_32BIT)
	if err != nil || m.call(getpid, 0, 0, 0, 0, 0) != unix.Getpid() {
		return nil
	}
	return m
})

// Available says whether the kernel has the system calls of i386.
func Available() bool { return start() != nil }

// Setsockopt is the system call. It is for one goroutine at a time, as Setup is.
func Setsockopt(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
	m := start()
	copy(m.low, unsafe.Slice((*byte)(value), n))
	_, errno := result(m.call(setsockopt, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&m.low[0])), n))
	return errno
}

// Setup is io_uring_setup. The ring's requests are 32-bit ones, whoever makes them.
func Setup(entries int, params []byte) (fd int, errno unix.Errno) {
	m := start()
	copy(m.low, params)
	fd, errno = result(m.call(ioURingSetup, uintptr(entries), uintptr(unsafe.Pointer(&m.low[0])), 0, 0, 0))
	copy(params, m.low)
	return fd, errno
}

func result(r int) (int, unix.Errno) {
	if r < 0 {
		return -1, unix.Errno(-r)
	}
	return r, 0
}
