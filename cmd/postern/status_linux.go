package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/postern-fw/postern/kernel"
	"github.com/spf13/cobra"
)

func newStatus(t *term) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell what is in force, and where",
		Long: `status tells which policy is in force in this network namespace, which interfaces
it guards and by which hook, and what is not as the policy wants it.

Exit code 0 if all that the policy wants is guarded, 1 if not or if nothing is in
force.`,
		Example: "  postern status\n  postern status --json | jq '.interfaces[] | select(.guarded | not)'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s, err := t.machine.status()
			if err != nil {
				return t.refused(err)
			}
			told := &statusAndRun{Status: s}
			if c, err := t.machine.client(); err == nil {
				told.PID = c.PID
				c.Close()
			}
			if asJSON {
				err = newJSON(t.out).Encode(told)
			} else {
				err = t.writeStatus(told)
			}
			if err != nil {
				return ioError(err)
			}
			if !asItShould(s) {
				return answerNo
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object")
	return cmd
}

// status is what is in force; that nothing is, is no error.
func (m *machine) status() (*kernel.Status, error) {
	s, err := m.host.Status()
	if errors.Is(err, kernel.ErrNothing) {
		s, err = &kernel.Status{}, nil
	}
	if err == nil && s.Interfaces == nil {
		s.Interfaces = []kernel.Interface{}
	}
	return s, err
}

// statusAndRun is what is in force and who keeps it in step.
type statusAndRun struct {
	*kernel.Status
	// PID is the process of the namespace's `postern run`; 0 if there is none.
	PID int `json:"run_pid,omitempty"`
}

// asItShould reports whether all that the policy wants is.
func asItShould(s *kernel.Status) bool {
	for _, i := range s.Interfaces {
		if !i.Guarded || i.Fault != "" || i.Policy != "" {
			return false
		}
	}
	for _, seal := range s.Seals {
		if !seal.Sealed {
			return false
		}
	}
	return s.Enforcing
}

func (t *term) writeStatus(s *statusAndRun) error {
	now := t.machine.now()
	w := table(t.out)
	if s.Enforcing {
		fmt.Fprintf(w, "policy\t%s, of %s, generation %d\n", s.Policy, s.File, s.Generation)
		fmt.Fprintf(w, "since\t%s, %s\n", s.Since.Format("2006-01-02 15:04:05 MST"), ago(now.Sub(s.Since)))
	} else {
		fmt.Fprintf(w, "policy\t%s\n", t.paint.in(red, "none: every frame may leave"))
	}
	if s.Pending != nil {
		fmt.Fprintf(w, "pending\t%s\n", pending(s.Pending, now))
	}
	if s.PID != 0 {
		fmt.Fprintf(w, "run\tprocess %d\n", s.PID)
	}
	if s.LostEvents > 0 {
		fmt.Fprintf(w, "events\t%d lost: nobody read them in time\n", s.LostEvents)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := t.writeInterfaces(s.Status); err != nil {
		return err
	}
	for _, warning := range s.Warnings {
		fmt.Fprintf(t.out, "%s %s\n", t.paint.in(red, "warning:"), warning)
	}
	return nil
}

// ago is how long ago something was, to the second in the first hours.
func ago(d time.Duration) string {
	if d > 48*time.Hour {
		return fmt.Sprintf("%d days ago", d/(24*time.Hour))
	}
	return d.Round(time.Second).String() + " ago"
}

func (t *term) writeInterfaces(s *kernel.Status) error {
	w := table(t.out)
	if len(s.Interfaces) > 0 {
		fmt.Fprintf(w, "\nINTERFACE\tDIRECTION\tSENDERS\tHOOK\tSTATE\n")
	}
	for _, i := range s.Interfaces {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", graphic(i.Name), i.Direction, i.Senders, i.Hook, t.interfaceState(&i))
	}
	if len(s.Seals) > 0 {
		fmt.Fprintf(w, "\nSEALED CGROUP\tSTATE\n")
	}
	for _, seal := range s.Seals {
		fmt.Fprintf(w, "%s\t%s\n", seal.Cgroup, t.state(seal.Sealed, "sealed", seal.Fault))
	}
	return w.Flush()
}

func (t *term) interfaceState(i *kernel.Interface) string {
	state := t.state(i.Guarded, "guarded", i.Fault)
	if i.Policy != "" {
		state += ", by policy " + i.Policy
	}
	return state
}

// state is the word for what is, and what is wrong with it.
func (t *term) state(is bool, word, fault string) string {
	switch {
	case !is:
		word = t.paint.in(red, "not "+word)
	case fault == "":
		word = t.paint.in(green, word)
	}
	if fault != "" {
		word += ": " + fault
	}
	return word
}

// table aligns columns, which are separated by tabs. Only the last may be painted.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }
