package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func thisMachine(args []string) machine {
	m := machine{Date: time.Now().Format(time.DateOnly), Args: strings.Join(args, " "), CPUs: runtime.NumCPU(), Go: runtime.Version()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
	}
	m.CPU = lineOf("/proc/cpuinfo", "model name")
	m.Loadavg = first("/proc/loadavg", 3)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Commit = s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return m
}

// lineOf is what stands behind "key:" in a file.
func lineOf(file, key string) string {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// first are the first n words of a file.
func first(file string, n int) string {
	b, _ := os.ReadFile(file)
	f := strings.Fields(string(b))
	return strings.Join(f[:min(n, len(f))], " ")
}
