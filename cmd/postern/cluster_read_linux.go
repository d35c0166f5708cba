package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-fw/postern/cluster/policy"
)

// header is a version without its text.
type header struct {
	policy.Version
	Text string `json:"text,omitempty"`
}

func (t *clusterTerm) newGet() *cobra.Command {
	return &cobra.Command{
		Use:     "get [VERSION]",
		Short:   "Print a version of the policy: the last good one, or that of a number",
		Example: "  postern cluster get > policy.yaml\n  postern cluster get 12 --json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			n, err := version(args)
			if err != nil {
				return err
			}
			if n == 0 {
				s, err := store.State(cmd.Context())
				if err != nil {
					return clusterError(err)
				}
				if s.Rollout == nil || s.Rollout.Good.Number == 0 {
					return &exitError{exitNo, fmt.Errorf("%w: no policy has been taken by all nodes yet", policy.ErrNoVersion)}
				}
				n = s.Rollout.Good.Number
			}
			v, err := store.Version(cmd.Context(), n)
			if err != nil {
				return clusterError(err)
			}
			if t.asJSON {
				return ioError(newJSON(t.out).Encode(v))
			}
			_, err = fmt.Fprint(t.out, v.Text)
			return ioError(err)
		},
	}
}

// version is the argument, 0 if there is none.
func version(args []string) (n uint64, err error) {
	if len(args) == 0 {
		return 0, nil
	}
	if n, err = strconv.ParseUint(args[0], 10, 63); err != nil || n == 0 {
		return 0, usageError("%q is no number of a version; postern cluster history lists them", args[0])
	}
	return n, nil
}

// nodeStatus is a node, as status tells it.
type nodeStatus struct {
	Node string `json:"node"`
	// Present says that its lease lasts and that it takes part.
	Present bool `json:"present"`
	// Wanted is the version that it is to have now.
	Wanted uint64 `json:"wanted"`
	*policy.Report
}

// clusterStatus is what status tells.
type clusterStatus struct {
	Rollout *policy.Rollout `json:"rollout"`
	Nodes   []nodeStatus    `json:"nodes"`
	// Elements is how many elements of sets there are.
	Elements int      `json:"elements"`
	Faults   []string `json:"faults,omitempty"`
}

func (t *clusterTerm) newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell which version each node has, and how a roll-out stands",
		Long: `status tells what each node reported last, also if it is gone. The exit code is 1 if a
roll-out failed or is under way, or a node that is there has another version or a fault.`,
		Example: "  postern cluster status\n  postern cluster status --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			s, err := store.State(cmd.Context())
			if err != nil {
				return clusterError(err)
			}
			out := statusOf(s)
			if t.asJSON {
				err = newJSON(t.out).Encode(out)
			} else {
				err = t.printStatus(out)
			}
			if err == nil && !out.fine() {
				return answerNo
			}
			return ioError(err)
		},
	}
}

func statusOf(s *policy.State) *clusterStatus {
	out := &clusterStatus{Rollout: s.Rollout, Nodes: []nodeStatus{}, Elements: len(s.Elements), Faults: s.Faults()}
	present := s.Present()
	for node, r := range s.Reports {
		n := nodeStatus{Node: node, Present: slices.Contains(present, node), Report: r}
		if s.Rollout != nil {
			n.Wanted = s.Rollout.Target(node).Number
		}
		out.Nodes = append(out.Nodes, n)
	}
	slices.SortFunc(out.Nodes, func(a, b nodeStatus) int { return strings.Compare(a.Node, b.Node) })
	return out
}

func (s *clusterStatus) fine() bool {
	return (s.Rollout == nil || s.Rollout.Stage == policy.Done) && len(s.Faults) == 0 &&
		!slices.ContainsFunc(s.Nodes, func(n nodeStatus) bool { return n.Present && n.wrong() != "" })
}

// wrong says what is wrong with a node.
func (n *nodeStatus) wrong() string {
	var list []string
	if a := n.Attempt; a != nil && a.Error != "" {
		list = append(list, fmt.Sprintf("version %d: %s", a.Number, a.Error))
	}
	if n.Number != n.Wanted && list == nil {
		list = append(list, fmt.Sprintf("version %d is wanted", n.Wanted))
	}
	for _, i := range n.Interfaces {
		if i.Fault != "" {
			list = append(list, i.Name+": "+i.Fault)
		}
	}
	return strings.Join(append(list, n.Faults...), "; ")
}

func (t *clusterTerm) printStatus(s *clusterStatus) error {
	if s.Rollout == nil {
		fmt.Fprintln(t.out, "no policy has been put")
	} else {
		fmt.Fprintf(t.out, "%s (%s)\n", rolloutLine(s.Rollout), s.Rollout.Since.Local().Format(time.DateTime))
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tVERSION\tSINCE\tRULES\tACCEPTED\tDROPPED\tMALFORMED\tHOOKS\tREPORTED\t")
	for _, n := range s.Nodes {
		v, note := fmt.Sprint(n.Number), n.wrong()
		switch {
		case n.Trial != 0:
			v += fmt.Sprintf(" (tries %d)", n.Trial)
		case n.FromDisk && n.Number != 0:
			v += " (from disk)"
		}
		if !n.Present {
			note = strings.TrimSuffix("not there; "+note, "; ")
		}
		var hooks []string
		for _, i := range n.Interfaces {
			hooks = append(hooks, strings.TrimSpace(i.Name+" "+i.Hook))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", n.Node, v, n.Since.Local().Format(time.DateTime), n.Counters.Rules, n.Counters.Accepted,
			n.Counters.Dropped, n.Counters.Malformed, strings.Join(hooks, ", "), n.Time.Local().Format(time.DateTime), strings.ReplaceAll(note, "\n", " "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if s.Elements > 0 {
		fmt.Fprintf(t.out, "%s of sets\n", count(s.Elements, "element"))
	}
	for _, f := range s.Faults {
		fmt.Fprintln(t.out, "not taken: "+f)
	}
	return nil
}

// event is a version with its outcome.
type event struct {
	header
	Outcome *policy.Outcome `json:"outcome,omitempty"`
}

func (t *clusterTerm) newHistory() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "List the versions, and what came of them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			list, err := store.Versions(cmd.Context())
			if err != nil {
				return clusterError(err)
			}
			outcomes, bad, err := store.Outcomes(cmd.Context())
			if err != nil {
				return clusterError(err)
			}
			var events []event
			for _, n := range list {
				v, err := store.Version(cmd.Context(), n)
				if err != nil {
					bad = append(bad, err)
					continue
				}
				events = append(events, event{header{*v, ""}, outcomes[n]})
			}
			if err := t.printHistory(events); err != nil {
				return ioError(err)
			}
			for _, b := range bad {
				fmt.Fprintln(t.errs, policy.Shown(b.Error(), 512))
			}
			if len(bad) > 0 {
				return answerNo
			}
			return nil
		},
	}
}

func (t *clusterTerm) printHistory(events []event) error {
	if t.asJSON {
		enc := newJSON(t.out)
		for _, e := range events {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tPUT\tBY\tPOLICY\tOUTCOME\tCOMMENT")
	for _, e := range events {
		outcome := "under way"
		if o := e.Outcome; o != nil && o.Done {
			outcome = "done"
		} else if o != nil {
			outcome = "failed: " + strings.ReplaceAll(o.Cause, "\n", " ")
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.Number, e.Time.Local().Format(time.DateTime), e.Author, e.Name, outcome, strings.ReplaceAll(e.Comment, "\n", " "))
	}
	return w.Flush()
}
