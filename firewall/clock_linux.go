package firewall

import "golang.org/x/sys/unix"

// bootTime is CLOCK_BOOTTIME in nanoseconds: it counts while the machine sleeps
// and no one can set it.
func bootTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 1<<63 - 1 // no clock: every deadline has passed
	}
	return ts.Nano()
}
