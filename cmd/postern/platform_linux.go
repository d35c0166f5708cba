package main

import "github.com/spf13/cobra"

// platformCommands are those that need Linux.
func platformCommands(t *term) []*cobra.Command {
	return []*cobra.Command{newApply(t), newConfirm(t), newRollback(t), newRun(t), newStatus(t), newList(t), newFlush(t), newSet(t),
		newMonitor(t), newDoctor(t), newDemo(t), newRelay(t), newBindings(t), newAgent(t), newVips(t), newCluster(t)}
}

func newDemo(t *term) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work, in throw-away network namespaces",
		Long: `demo makes two network namespaces of its own and sends honest and forged ARP and
DHCP frames from one to the other through guarded sockets. It touches nothing on
the host. Without root it uses a user namespace. The exit code is 1 if a forged
frame arrived, or an honest one did not.`,
		Example: "  postern demo",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if code := demo(t.out, t.errs); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	cmd.AddCommand(newDemoCluster(t))
	return cmd
}
