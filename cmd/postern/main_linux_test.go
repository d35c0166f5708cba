package main

import (
	"context"
	"os"
	"testing"

	"github.com/postern-fw/postern/kernel"
)

// In the environment, asCommand lets the test binary be postern itself, for tests that
// need it in a process of its own; asCommandRoot is where that keeps its pins.
const (
	asCommand     = "POSTERN_TEST_AS_COMMAND"
	asCommandRoot = "POSTERN_TEST_ROOT"
)

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) == "" {
		os.Exit(m.Run())
	}
	term := newTerm(os.Stdin, os.Stdout, os.Stderr)
	if root := os.Getenv(asCommandRoot); root != "" {
		term.machine.host = kernel.Host{Root: root}
	}
	os.Exit(term.run(context.Background(), os.Args[1:]))
}
