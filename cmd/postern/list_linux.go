package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/postern-fw/postern/kernel"
	"github.com/spf13/cobra"
)

func newList(t *term) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the rules in force, with their counters",
		Long: `list shows the rules in force in this network namespace, in order, with how many
frames and bytes matched each; then the default, and malformed frames.

Exit code 1 if nothing is in force.`,
		Example: "  postern list\n  postern list --json | jq 'select(.frames > 0)'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			rules, err := t.machine.host.Rules()
			if err != nil {
				return t.refused(err)
			}
			if asJSON {
				enc := newJSON(t.out)
				for i := range rules {
					if err := enc.Encode(&rules[i]); err != nil {
						return ioError(err)
					}
				}
				return nil
			}
			return ioError(t.writeRules(rules))
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object a rule")
	return cmd
}

func (t *term) writeRules(rules []kernel.Rule) error {
	name, verdict := len("RULE"), len("VERDICT")
	for i := range rules {
		name = min(maxWidth, max(name, len(rules[i].Name)))
		verdict = min(maxWidth, max(verdict, len(rules[i].Verdict)))
	}
	w := bufio.NewWriter(t.out)
	fmt.Fprintf(w, "%10s  %12s  %-*s  %-*s  %s\n", "FRAMES", "BYTES", name, "RULE", verdict, "VERDICT", "MATCH")
	for i := range rules {
		r := &rules[i]
		painted := t.paint.in(verdictColour(r.Verdict), fmt.Sprintf("%-*s", verdict, r.Verdict))
		line := fmt.Sprintf("%10d  %12d  %-*s  %s  %s", r.Frames, r.Bytes, name, r.Name, painted, conditions(r))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	return w.Flush()
}

func verdictColour(verdict string) string {
	switch verdict {
	case "accept":
		return green
	case "drop":
		return red
	}
	return cyan
}

// conditions are what a frame must meet, and what else becomes of one that does.
func conditions(r *kernel.Rule) string {
	s := []string{r.Match}
	if r.Limit != "" {
		s = append(s, "limit "+r.Limit)
	}
	if r.Log {
		s = append(s, "log")
	}
	if r.Audit {
		s = append(s, "audit")
	}
	return strings.TrimPrefix(strings.Join(s, "; "), "; ")
}
