//go:build !linux

package binding

import "time"

var start = time.Now()

// BootTime stands in for CLOCK_BOOTTIME, which Linux alone has.
func BootTime() int64 { return int64(time.Since(start)) + 1 }
