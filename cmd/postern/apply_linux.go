package main

import (
	"fmt"
	"time"

	"github.com/postern-fw/postern/kernel"
	"github.com/spf13/cobra"
)

func newApply(t *term) *cobra.Command {
	var file string
	var asJSON bool
	var o kernel.ApplyOptions
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Put a policy in force",
		Long: `apply puts a policy in force in this network namespace, in place of the one that
was, and ends. What it enforces lives in the kernel and outlives it. The change is
made whole or not at all, and each frame is judged by the old policy or by the new
one, never by none.

With --confirm the kernel itself goes back to the policy before, unless
"postern confirm" comes in time: for a machine that a mistake would cut off.

Exit code 0 if the policy is in force, 1 if it is wrong or asks for what the kernel
engine cannot do, 3 if the machine refused; then nothing has changed.`,
		Example: `  postern apply -f policy.yaml
  postern apply -f policy.yaml --confirm 1m && ping -c 1 192.0.2.1 && postern confirm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("confirm") && o.Confirm <= 0 {
				return usageError("--confirm: %v is no time to come; write it like 30s or 5m", o.Confirm)
			}
			text, err := readFile(t, file)
			if err != nil {
				return err
			}
			src := kernel.Source{Name: file, Text: text}
			s, err := t.machine.host.Apply(src, o)
			if err != nil {
				return t.refusedPolicy(src, err)
			}
			if asJSON {
				return ioError(newJSON(t.out).Encode(s))
			}
			t.warn(s)
			t.tellRun()
			_, err = fmt.Fprintln(t.out, inForce(s, t.machine.now()))
			return ioError(err)
		},
	}
	policyFlag(cmd, &file)
	cmd.Flags().DurationVar(&o.Confirm, "confirm", 0, "go back after `DURATION` (30s, 5m) unless postern confirm comes")
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object: what postern status --json says")
	return cmd
}

// inForce says in a line what is.
func inForce(s *kernel.Status, now time.Time) string {
	if !s.Enforcing {
		return kernel.ErrNothing.Error()
	}
	guarded := 0
	for _, i := range s.Interfaces {
		if i.Guarded {
			guarded++
		}
	}
	line := fmt.Sprintf("%s is in force: %d of %s guarded", s.Policy, guarded, count(len(s.Interfaces), "interface"))
	if s.Pending != nil {
		line += "; " + pending(s.Pending, now)
	}
	return line
}

// pending says what will become of a policy that waits to be confirmed.
func pending(p *kernel.Pending, now time.Time) string {
	before := p.Before
	if before == "" {
		before = "no policy"
	}
	if left := p.Deadline.Sub(now); left > 0 && !p.RolledBack {
		return fmt.Sprintf("goes back to %s in %v unless postern confirm comes", before, left.Round(time.Second))
	}
	return fmt.Sprintf("was not confirmed: the kernel went back to %s", before)
}

// tellRun says who will undo what was done.
func (t *term) tellRun() {
	if c, err := t.machine.client(); err == nil {
		fmt.Fprintf(t.errs, "postern: process %d (postern run) puts its own policy in force again when its file changes, or at SIGHUP\n", c.PID)
		c.Close()
	}
}

// warn says what is not as the policy wants it.
func (t *term) warn(s *kernel.Status) {
	for _, w := range s.Warnings {
		fmt.Fprintf(t.errs, "postern: warning: %s\n", w)
	}
}

func newConfirm(t *term) *cobra.Command {
	return t.changing(&cobra.Command{
		Use:   "confirm",
		Short: "Keep the policy that apply --confirm put in force",
		Long: `confirm keeps what "postern apply --confirm" put in force. Exit code 1 if nothing
waits to be confirmed, or the time is up.`,
		Example: "  postern confirm",
	}, t.machine.host.Confirm)
}

func newRollback(t *term) *cobra.Command {
	return t.changing(&cobra.Command{
		Use:   "rollback",
		Short: "Go back at once to what was before apply --confirm",
		Long: `rollback goes back to what was in force before "postern apply --confirm", without
waiting for its time to be up. Exit code 1 if nothing waits to be confirmed.`,
		Example: "  postern rollback",
	}, t.machine.host.Rollback)
}

func newFlush(t *term) *cobra.Command {
	return t.changing(&cobra.Command{
		Use:   "flush",
		Short: "Take away what is in force",
		Long: `flush takes away all that is enforced in this network namespace: every frame may
leave. It is no error if there is nothing.`,
		Example: "  postern flush",
	}, func() error {
		err := t.machine.host.Flush()
		if err == nil {
			t.tellRun()
		}
		return err
	})
}

// changing completes a command that does one thing and then says what is in force.
func (t *term) changing(cmd *cobra.Command, do func() error) *cobra.Command {
	var asJSON bool
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(*cobra.Command, []string) error {
		if err := do(); err != nil {
			return t.refused(err)
		}
		s, err := t.machine.status()
		if err != nil {
			return t.refused(err)
		}
		if asJSON {
			return ioError(newJSON(t.out).Encode(s))
		}
		_, err = fmt.Fprintln(t.out, inForce(s, t.machine.now()))
		return ioError(err)
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object: what postern status --json says")
	return cmd
}
