package main

import (
	"fmt"

	"github.com/postern-fw/postern/kernel"
	"github.com/spf13/cobra"
)

func newDoctor(t *term) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this machine can enforce, and what is open",
		Long: `doctor tells what this kernel and these rights can do, what is missing and how to
remedy it; then, for each guarded interface, which ways of sending are closed,
which are not, and why.

Exit code 0 if nothing is open that could be closed, 1 if something is.`,
		Example: "  postern doctor\n  postern doctor --json | jq '.interfaces[].paths[] | select(.closed | not)'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			d := t.machine.host.Doctor()
			var err error
			if asJSON {
				err = newJSON(t.out).Encode(d)
			} else {
				err = t.writeDiagnosis(d)
			}
			if err != nil {
				return ioError(err)
			}
			if !healthy(d) {
				return answerNo
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object")
	return cmd
}

// healthy reports whether nothing is open that could be closed: what has no remedy
// cannot be.
func healthy(d *kernel.Diagnosis) bool {
	for _, c := range d.Checks {
		if !c.OK && c.Remedy != "" {
			return false
		}
	}
	for _, i := range d.Interfaces {
		if !i.Guarded {
			return false
		}
		for _, p := range i.Paths {
			if !p.Closed && !p.ByPolicy {
				return false
			}
		}
	}
	return true
}

func (t *term) writeDiagnosis(d *kernel.Diagnosis) error {
	for _, c := range d.Checks {
		word := t.paint.in(green, "OK     ")
		if !c.OK {
			word = t.paint.in(red, "MISSING")
		}
		line := c.Name
		if c.Detail != "" {
			line += ": " + c.Detail
		}
		if _, err := fmt.Fprintf(t.out, "%s  %s\n", word, line); err != nil {
			return err
		}
		if !c.OK && c.Remedy != "" {
			fmt.Fprintf(t.out, "         remedy: %s\n", c.Remedy)
		}
	}
	for _, i := range d.Interfaces {
		fmt.Fprintf(t.out, "\n%s, %s by %s, senders %s: %s\n", graphic(i.Name), i.Direction, i.Hook, i.Senders, t.interfaceState(&i))
		if err := t.writePaths(i.Paths); err != nil {
			return err
		}
	}
	return nil
}

func (t *term) writePaths(paths []kernel.Path) error {
	w := table(t.out)
	for _, p := range paths {
		word := "closed"
		if !p.Closed {
			word = "OPEN"
		}
		if _, err := fmt.Fprintf(w, "  %s\t%s\t%s\n", word, p.Name, p.Why); err != nil {
			return err
		}
	}
	return w.Flush()
}
