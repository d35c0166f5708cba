package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/internal/capture"
	"github.com/spf13/cobra"
)

// maxPolicy is how long a policy file may be, in bytes.
const maxPolicy = 64 << 20

// readPolicy reads and compiles a policy file; `-` is standard input. The
// error is a firewall.Diagnostics where the policy is wrong, else an exitError.
func readPolicy(t *term, name string) (*firewall.Policy, *firewall.Firewall, firewall.Diagnostics, error) {
	src, err := readFile(t, name)
	if err != nil {
		return nil, nil, nil, err
	}
	p, warnings, err := firewall.Parse(name, src)
	if err != nil {
		return nil, nil, warnings, err
	}
	fw, err := firewall.New(p)
	if err != nil {
		var d firewall.Diagnostics
		if !errors.As(err, &d) {
			err = &exitError{exitNo, fmt.Errorf("%s: %w", name, err)}
		}
		return nil, nil, warnings, err
	}
	return p, fw, warnings, nil
}

func readFile(t *term, name string) ([]byte, error) {
	in := t.in
	if name != capture.Stdin {
		f, err := os.Open(name)
		if err != nil {
			return nil, fileError(err)
		}
		defer f.Close()
		in = f
	}
	src, err := io.ReadAll(io.LimitReader(in, maxPolicy+1))
	if err != nil {
		return nil, fileError(err)
	}
	if len(src) > maxPolicy {
		return nil, &exitError{exitNo, fmt.Errorf("%s: longer than %d bytes: not a policy", name, maxPolicy)}
	}
	return src, nil
}

// mustPolicy is readPolicy for a command that needs one: its diagnostics go to
// errs.
func mustPolicy(t *term, name string) (*firewall.Policy, *firewall.Firewall, error) {
	p, fw, _, err := readPolicy(t, name)
	var d firewall.Diagnostics
	if errors.As(err, &d) {
		fmt.Fprintln(t.errs, d.Error())
		return nil, nil, answerNo
	}
	return p, fw, err
}

// policyFlag adds the required flag -f.
func policyFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "the policy `FILE`; - is standard input")
	_ = cmd.MarkFlagRequired("file")
	_ = cmd.MarkFlagFilename("file", policyExt...)
}

var policyExt = []string{"yaml", "yml"}

func completePolicies(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return policyExt, cobra.ShellCompDirectiveFilterFileExt
}
