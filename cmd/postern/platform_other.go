//go:build !linux

package main

import "github.com/spf13/cobra"

// platformCommands are those that need Linux: elsewhere policies are written
// and tested, not enforced.
func platformCommands(*term) []*cobra.Command { return nil }
