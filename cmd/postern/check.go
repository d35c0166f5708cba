package main

import (
	"errors"
	"fmt"

	"github.com/postern-fw/postern/firewall"
	"github.com/spf13/cobra"
)

func newCheck(t *term) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Tell whether policies are sound",
		Long: `check reads policy files and says what is wrong with them, as a compiler does. It
warns of rules that can never match. With warnings alone a policy is sound.

Exit code 0 if all are sound, 1 if not.`,
		Example: `  postern check policy.yaml
  postern check --json examples/*.yaml`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completePolicies,
		RunE: func(_ *cobra.Command, files []string) error {
			sound := true
			for _, name := range files {
				ok, err := check(t, name, asJSON)
				if err != nil {
					return err
				}
				sound = sound && ok
			}
			if !sound {
				return answerNo
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object a finding")
	return cmd
}

func check(t *term, name string, asJSON bool) (sound bool, err error) {
	p, _, findings, err := readPolicy(t, name)
	var wrong firewall.Diagnostics
	switch {
	case errors.As(err, &wrong):
		findings = wrong
	case err != nil:
		return false, err
	}
	if asJSON {
		return wrong == nil, writeFindings(t, findings)
	}
	if len(findings) > 0 {
		fmt.Fprintln(t.out, findings.Error())
	}
	if wrong == nil {
		fmt.Fprintf(t.out, "%s: %s, %s\n", name, t.paint.in(green, "sound"), count(len(p.Rules), "rule"))
	}
	return wrong == nil, nil
}

// finding is a Diagnostic in JSON.
type finding struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Length   int    `json:"length"`
	Severity string `json:"severity"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

func writeFindings(t *term, findings firewall.Diagnostics) error {
	enc := newJSON(t.out)
	for _, d := range findings {
		severity := "error"
		if d.Warning {
			severity = "warning"
		}
		if err := enc.Encode(finding{d.File, d.Line, d.Col, d.Len, severity, d.Msg, d.Hint}); err != nil {
			return fileError(err)
		}
	}
	return nil
}

// count is "1 rule" or "2 rules".
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
