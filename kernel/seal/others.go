//go:build !linux

package seal

import "fmt"

var errLinux = fmt.Errorf("seal: cgroups are Linux's: %w", ErrNotSupported)

// Install is not supported here.
func (s Seal) Install() error { return errLinux }

// Remove is not supported here.
func (s Seal) Remove() error { return errLinux }

// Status is not supported here.
func (s Seal) Status() (State, error) { return State{}, errLinux }

// Probe is not supported here.
func Probe() error { return errLinux }
