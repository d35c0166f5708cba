//go:build !linux

package bpf

import "fmt"

// Engine is a policy in the kernel, of which there is none here.
type Engine struct{}

// Load fails: eBPF programs for network devices are Linux's.
func (s *Spec) Load() (*Engine, error) {
	return nil, fmt.Errorf("%w: it needs Linux", ErrNotSupported)
}

// Close does nothing.
func (e *Engine) Close() error { return nil }
