//go:build !linux

package tc

import (
	"fmt"

	"github.com/cilium/ebpf"
)

var errLinux = fmt.Errorf("tc: eBPF at interfaces is Linux's: %w", ErrNotSupported)

// Install is not supported here.
func (a Attachment) Install(*ebpf.Program) error { return errLinux }

// Remove is not supported here.
func (a Attachment) Remove() error { return errLinux }

// Status is not supported here.
func (a Attachment) Status() (State, error) { return State{}, errLinux }

// List is not supported here.
func List(string, int) ([]Attachment, error) { return nil, errLinux }

// Probe is not supported here.
func Probe() error { return errLinux }

// Probe is not supported here.
func (k Kind) Probe() error { return errLinux }
