//go:build linux && !amd64

package i386

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Available is false: other processors have no such system calls, or not for 64-bit programs.
func Available() bool { return false }

// Setsockopt is not available.
func Setsockopt(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
	return unix.ENOSYS
}

// Setup is not available.
func Setup(entries int, params []byte) (int, unix.Errno) { return -1, unix.ENOSYS }
