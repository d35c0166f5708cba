//go:build !linux

package main

import "github.com/spf13/cobra"

// machine is nothing here: elsewhere than on Linux policies are written and tested,
// not enforced.
type machine struct{}

func thisMachine() machine { return machine{} }

// platformCommands are those that need Linux.
func platformCommands(*term) []*cobra.Command { return nil }
