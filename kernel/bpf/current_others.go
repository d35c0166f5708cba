//go:build !linux

package bpf

func tellsSender() bool { return true }
