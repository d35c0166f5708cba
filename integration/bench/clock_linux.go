package main

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// pin keeps the calling goroutine on its thread, and the thread on one CPU.
func pin(cpu int) error {
	runtime.LockOSThread()
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("staying on CPU %d: %w", cpu, err)
	}
	return nil
}

// timed makes a side's run of what does the work n times. It measures the time that this thread had
// a CPU: a frame into a sink is done with when the system call returns, and what other
// programs of the machine take meanwhile is not counted.
func timed(work func(n int) error) func(n int) (time.Duration, error) {
	return timedBy(unix.CLOCK_THREAD_CPUTIME_ID, work)
}

// timedInAll measures the time that all threads had a CPU: who allocates has the garbage collector work on others.
func timedInAll(work func(n int) error) func(n int) (time.Duration, error) {
	return timedBy(unix.CLOCK_PROCESS_CPUTIME_ID, work)
}

func timedBy(clock int32, work func(n int) error) func(n int) (time.Duration, error) {
	return func(n int) (time.Duration, error) {
		start := cpuTime(clock)
		err := work(n)
		return cpuTime(clock) - start, err
	}
}

func cpuTime(clock int32) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		panic(err) // there is no kernel without it
	}
	return time.Duration(ts.Nano())
}
