// Command postern guards the way out of a machine for link-layer frames.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Exit codes of the command line.
const (
	exitNo      = 1 // the answer is no: a test failed, a policy or a capture is wrong
	exitUsage   = 2 // the command line makes no sense
	exitMachine = 3 // the machine refused: rights, kernel, files
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the whole program but for the process around it.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	return newTerm(in, out, errs).run(context.Background(), args)
}

// run runs a command, until it ends or ctx does.
func (t *term) run(ctx context.Context, args []string) int {
	root := newRoot(t)
	root.SetArgs(args)
	root.SetContext(ctx)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var e *exitError
	if !errors.As(err, &e) {
		// What cobra itself says is about the command line.
		fmt.Fprintf(t.errs, "%s: %v\nusage: %s\nsee %s --help\n", cmd.CommandPath(), err, cmd.UseLine(), cmd.CommandPath())
		return exitUsage
	}
	if e.err != nil {
		fmt.Fprintf(t.errs, "%s: %v\n", cmd.CommandPath(), e.err)
	}
	return e.code
}

func newRoot(t *term) *cobra.Command {
	root := &cobra.Command{
		Use:   "postern COMMAND",
		Short: "Guard the way out of a machine for link-layer frames",
		Long: `postern decides which ARP, DHCP and other link-layer frames may leave a Linux
machine. A policy file says so, in the language of Wireshark's display filters.

Exit codes: 0 done, 1 the answer is no (a test failed, a policy or a capture is
wrong), 2 usage, 3 the machine refused (rights, kernel, files).`,
		Example: `  postern check policy.yaml
  postern match 'arp.opcode == 2' trace.pcapng
  postern replay -f policy.yaml -w dropped.pcapng trace.pcapng
  postern apply -f policy.yaml --confirm 1m`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		SilenceErrors:         true,
		SilenceUsage:          true,
		RunE:                  t.helpAlone,
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.errs)
	root.AddCommand(newCheck(t), newMatch(t), newReplay(t), newTest(t), newExplain(t))
	root.AddCommand(platformCommands(t)...)
	return root
}

// helpAlone is a command that does nothing without one of its subcommands.
func (t *term) helpAlone(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(t.errs)
	if err := cmd.Help(); err != nil {
		return err
	}
	return &exitError{code: exitUsage}
}

// exitError ends the program with a code. Without err all is said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprintf("%v (exit code %d)", e.err, e.code) }

func (e *exitError) Unwrap() error { return e.err }

// answerNo is the end of a command that has said why.
var answerNo = &exitError{code: exitNo}

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// fileError sorts an error about a file that was named on the command line: one
// that is not there is a mistake in the command, others are the machine's.
func fileError(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &exitError{exitUsage, err}
	}
	return &exitError{exitMachine, err}
}
