//go:build linux && !amd64

package matrix

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func setsockopt32() func(fd, level, option int, value unsafe.Pointer, n uintptr) unix.Errno {
	return nil
}
