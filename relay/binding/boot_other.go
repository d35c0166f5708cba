//go:build !linux

package binding

import "time"

var start = time.Now()

// BootTime stands for CLOCK_BOOTTIME where nothing is relayed: it counts from the process's start.
func BootTime() int64 { return int64(time.Since(start)) }
