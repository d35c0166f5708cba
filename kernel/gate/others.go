//go:build !linux

package gate

import "fmt"

var errLinux = fmt.Errorf("gate: netfilter is Linux's: %w", ErrNotSupported)

// Install, Remove, Status, Inspection and Probe fail with ErrNotSupported: netfilter is Linux's.
func (g Gate) Install(cfg Config) error {
	if err := g.check(); err != nil {
		return err
	}
	if err := g.checkConfig(cfg); err != nil {
		return err
	}
	return errLinux
}

// Remove is not supported here.
func (g Gate) Remove() error { return errLinux }

// Status is not supported here.
func (g Gate) Status() (State, error) { return State{}, errLinux }

// Inspection is not supported here.
func (g Gate) Inspection() (int, error) { return 0, errLinux }

// Probe is not supported here.
func Probe(ns int) error { return errLinux }
