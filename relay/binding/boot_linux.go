package binding

import "golang.org/x/sys/unix"

// BootTime is CLOCK_BOOTTIME in nanoseconds.
func BootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 1<<63 - 1 // no clock: every deadline has passed
	}
	return ts.Nano()
}
