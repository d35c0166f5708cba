package matrix

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setsockopt32 makes the system call as a program for i386 does, by int 0x80, which
// any 64-bit program can do as well. It is nil where the kernel has none.
func setsockopt32() func(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
	const i386Setsockopt, i386Getpid = 366, 20
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
	call := *(*func(number, a, b, c, d, e uintptr) int)(unsafe.Pointer(&closure))
	// 32 bits do not reach Go's memory.
	low, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_32BIT)
	if err != nil || call(i386Getpid, 0, 0, 0, 0, 0) != unix.Getpid() {
		return nil
	}
	return func(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
		copy(low, unsafe.Slice((*byte)(value), n))
		r := call(i386Setsockopt, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&low[0])), n)
		if r < 0 {
			return unix.Errno(-r)
		}
		return 0
	}
}
