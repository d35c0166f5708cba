package cluster

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// BootTime is CLOCK_BOOTTIME in nanoseconds, the only clock that decides anything here: it
// counts while the machine sleeps, nobody can set it, and the kernel compares with it.
func BootTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 1<<63 - 1 // no clock: every lease is over
	}
	return ts.Nano()
}

// CheckClock fails where this process's CLOCK_BOOTTIME is not the kernel's own, which is what
// a door's end is compared with (time_namespaces(7)).
func CheckClock() error {
	b, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return nil // a kernel without time namespaces
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "boottime" && (f[1] != "0" || f[2] != "0") {
			return fmt.Errorf("this process is in a time namespace whose boottime is off by %s.%s s: leases would end at another time than the kernel sees; run the agent outside of it", f[1], f[2])
		}
	}
	return nil
}

// Instance is a name that no other agent has at the same time: this boot's, and the network
// namespace's, of which each has one agent at most.
func Instance(cookie uint64) (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("the name of this boot: %w", err)
	}
	return fmt.Sprintf("%s/%d", strings.TrimSpace(string(b)), cookie), nil
}
