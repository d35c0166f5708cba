//go:build !linux

package firewall

import "time"

var start = time.Now()

// bootTime stands in for CLOCK_BOOTTIME, which Linux alone has: policies are written and
// tested here, not enforced.
func bootTime() int64 { return int64(time.Since(start)) + 1 }
