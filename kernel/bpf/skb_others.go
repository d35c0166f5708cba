//go:build !linux

package bpf

func kernelSKB() skbLayout { return skbLayout{} }
