package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/cluster/etcd"
	"github.com/postern-fw/postern/cluster/fence"
	"github.com/postern-fw/postern/cluster/policy"
	"github.com/postern-fw/postern/firewall"
	"github.com/postern-fw/postern/kernel/bpf"
)

// clusterTerm is what the subcommands of cluster share.
type clusterTerm struct {
	*term
	file   string
	asJSON bool
}

func newCluster(t *term) *cobra.Command {
	c := &clusterTerm{term: t}
	cmd := &cobra.Command{
		Use:   "cluster COMMAND",
		Short: "The policy of all nodes of a cluster, kept in etcd",
		Long: `cluster keeps a policy for all nodes where the agents have their leases. A new version is
tried by one node, then by the others, and all go back to the last good one when
one fails. The agents see to that: the command may end meanwhile.

It reads where etcd is from the agent's configuration, and needs no rights on this
machine. The nodes take the policy whose configuration has "cluster-policy".

Exit codes: 0 done, 1 the answer is no, 2 usage, 3 the machine or etcd refused.`,
		Example: `  postern cluster put policy.yaml --comment "no rogue servers" --wait
  postern cluster status
  postern cluster rollback`,
		Args: cobra.NoArgs,
		RunE: t.helpAlone,
	}
	cmd.PersistentFlags().StringVarP(&c.file, "config", "c", "/etc/postern/agent.yaml", "the agent's configuration `FILE`")
	cmd.PersistentFlags().BoolVar(&c.asJSON, "json", false, "objects, one a line")
	cmd.AddCommand(c.newPut(), c.newGet(), c.newStatus(), c.newHistory(), c.newRollback(), c.newSet(), c.newForget())
	return cmd
}

// store is a client of the configuration's etcd.
func (t *clusterTerm) store() (*cluster.Config, *etcd.Policies, error) {
	c, err := agentConfig(t.file)
	if err != nil {
		return nil, nil, err
	}
	if c.Etcd == nil {
		return nil, nil, &exitError{exitNo, fmt.Errorf("%s names no etcd: a machine that is alone has postern apply", t.file)}
	}
	client, err := dialEtcd(c)
	if err != nil {
		return nil, nil, &exitError{exitNo, fmt.Errorf("%s: etcd: %w", t.file, err)}
	}
	client.Timeout = 3 * time.Second
	return c, &etcd.Policies{Client: client, Node: c.Node, Failed: func(error) {}}, nil
}

// clusterError sorts an error of the store.
func clusterError(err error) error {
	var sorted *exitError
	switch {
	case err == nil || errors.As(err, &sorted):
		return err
	}
	for _, no := range []error{policy.ErrConflict, policy.ErrNoVersion, policy.ErrTooLarge, policy.ErrPresent} {
		if errors.Is(err, no) {
			return &exitError{exitNo, err}
		}
	}
	return &exitError{exitMachine, err}
}

// author is who asks, for the record.
func author() string {
	name := fmt.Sprintf("uid %d", os.Getuid())
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return policy.Shown(name+"@"+host, 256)
}

func (t *clusterTerm) newPut() *cobra.Command {
	var comment, first string
	var wait bool
	cmd := &cobra.Command{
		Use:   "put FILE",
		Short: "Roll a policy out to all nodes",
		Long: `put checks a policy, runs its tests, and writes it as the next version, which the agents
then roll out. While another one is being rolled out it is refused.

With --wait it returns when that is over: exit code 0 if all nodes have it, 1 if they went
back to the version before.`,
		Example: "  postern cluster put policy.yaml --first n3 --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readFile(t.term, args[0])
			if err != nil {
				return err
			}
			c, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			p, err := t.sound(c, args[0], text)
			if err != nil {
				return err
			}
			v := policy.Version{Author: author(), Time: time.Now().UTC().Round(0), Comment: comment, Name: p.Name, Text: string(text)}
			return t.put(cmd.Context(), store, v, first, wait)
		},
	}
	cmd.Flags().StringVarP(&comment, "comment", "m", "", "what it is for")
	t.rolloutFlags(cmd, &first, &wait)
	return cmd
}

func (t *clusterTerm) rolloutFlags(cmd *cobra.Command, first *string, wait *bool) {
	cmd.Flags().StringVar(first, "first", "", "the `NODE` that tries it first; without it the first by name")
	cmd.Flags().BoolVar(wait, "wait", false, "return when all have it, or have gone back")
}

// sound checks a policy as the nodes will.
func (t *clusterTerm) sound(c *cluster.Config, name string, text []byte) (*firewall.Policy, error) {
	p, warnings, err := policy.Check(name, text)
	var wrong firewall.Diagnostics
	if errors.As(err, &wrong) {
		fmt.Fprintln(t.errs, wrong.Error())
		return nil, answerNo
	}
	if len(warnings) > 0 {
		fmt.Fprintln(t.errs, warnings.Error())
	}
	if err == nil {
		_, err = bpf.Compile(firewall.Compile(p), bpf.Options{})
	}
	if err == nil {
		_, err = fence.Compose(c, name, text)
	}
	if err != nil {
		return nil, &exitError{exitNo, err}
	}
	return p, nil
}

func (t *clusterTerm) put(ctx context.Context, store *etcd.Policies, v policy.Version, first string, wait bool) error {
	if first != "" {
		s, err := store.State(ctx)
		if err != nil {
			return clusterError(err)
		}
		if !slices.Contains(s.Present(), first) {
			return &exitError{exitNo, fmt.Errorf("%s is no node that takes part now: there are %v", first, s.Present())}
		}
	}
	put, err := store.Put(ctx, v, first)
	if err != nil {
		return clusterError(err)
	}
	if wait {
		return t.await(ctx, store, put.ID())
	}
	if t.asJSON {
		return ioError(newJSON(t.out).Encode(header{*put, ""}))
	}
	_, err = fmt.Fprintf(t.out, "version %d is being rolled out; postern cluster status tells how that goes\n", put.Number)
	return ioError(err)
}

// await tells what becomes of a roll-out, and returns when it is over.
func (t *clusterTerm) await(ctx context.Context, store *etcd.Policies, id policy.ID) error {
	var told policy.Stage
	for {
		s, err := store.State(ctx)
		if err != nil {
			return clusterError(err)
		}
		r := s.Rollout
		switch {
		case r == nil || r.ID != id:
			return &exitError{exitNo, fmt.Errorf("version %d is not rolled out any more", id.Number)}
		case r.Over() && t.asJSON:
			if err := newJSON(t.out).Encode(r.Outcome()); err != nil {
				return ioError(err)
			}
		case r.Over():
			fmt.Fprintln(t.out, rolloutLine(r))
		case r.Stage != told && !t.asJSON:
			fmt.Fprintln(t.errs, rolloutLine(r))
		}
		if told = r.Stage; r.Over() {
			if r.Stage == policy.Failed {
				return answerNo
			}
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return &exitError{exitMachine, ctx.Err()}
		}
	}
}

// rolloutLine says how a roll-out stands.
func rolloutLine(r *policy.Rollout) string {
	switch r.Stage {
	case policy.Put:
		return fmt.Sprintf("version %d: no node has begun", r.Number)
	case policy.First:
		return fmt.Sprintf("version %d: %s tries it", r.Number, r.First)
	case policy.Rest:
		return fmt.Sprintf("version %d: %s has it, %d others try it", r.Number, r.First, len(r.Nodes))
	case policy.Done:
		return fmt.Sprintf("version %d: all have it", r.Number)
	}
	back := "none"
	if r.Good.Number > 0 {
		back = fmt.Sprintf("version %d", r.Good.Number)
	}
	return fmt.Sprintf("version %d failed, all go back to %s: %s", r.Number, back, r.Cause)
}
