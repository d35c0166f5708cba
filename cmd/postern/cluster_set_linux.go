package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-fw/postern/cluster/etcd"
	"github.com/postern-fw/postern/cluster/policy"
	"github.com/postern-fw/postern/firewall"
)

func (t *clusterTerm) newRollback() *cobra.Command {
	var first string
	var wait bool
	cmd := &cobra.Command{
		Use:   "rollback [VERSION]",
		Short: "Call off a roll-out, or go back to a version before",
		Long: `rollback calls off what is being rolled out: all go back to the last good version. Where nothing
is, or with a VERSION, it rolls the text of that version out as a new one: without a number
that of the good one before the last.`,
		Example: "  postern cluster rollback\n  postern cluster rollback 12 --wait",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := version(args)
			if err != nil {
				return err
			}
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			if n > 0 { // what is not there calls nothing off
				if _, err := store.Version(cmd.Context(), n); err != nil {
					return clusterError(err)
				}
			}
			off, err := store.Abort(cmd.Context(), author())
			if err != nil {
				return clusterError(err)
			}
			if off != nil && n == 0 {
				if t.asJSON {
					return ioError(newJSON(t.out).Encode(off.Outcome()))
				}
				_, err = fmt.Fprintln(t.out, rolloutLine(off))
				return ioError(err)
			}
			if n == 0 {
				if n, err = before(cmd.Context(), store); err != nil {
					return clusterError(err)
				}
			}
			v, err := store.Version(cmd.Context(), n)
			if err != nil {
				return clusterError(err)
			}
			again := policy.Version{Author: author(), Time: time.Now().UTC().Round(0), Comment: fmt.Sprintf("back to version %d", n), From: n, Name: v.Name, Text: v.Text}
			return t.put(cmd.Context(), store, again, first, wait)
		},
	}
	t.rolloutFlags(cmd, &first, &wait)
	return cmd
}

// before is the good version before the last good one that had another text.
func before(ctx context.Context, store *etcd.Policies) (uint64, error) {
	s, err := store.State(ctx)
	if err != nil {
		return 0, err
	}
	outcomes, _, err := store.Outcomes(ctx)
	if err != nil {
		return 0, err
	}
	list, err := store.Versions(ctx)
	if err != nil {
		return 0, err
	}
	for _, n := range slices.Backward(list) {
		if o := outcomes[n]; s.Rollout == nil || o == nil || !o.Done || n >= s.Rollout.Good.Number {
			continue
		}
		if v, err := store.Version(ctx, n); err == nil && v.ID().Digest != s.Rollout.Good.Digest {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: none before the last good one was taken by all nodes", policy.ErrNoVersion)
}

func (t *clusterTerm) newForget() *cobra.Command {
	return &cobra.Command{
		Use:   "forget NODE",
		Short: "Remove what a node reported that is gone for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			was, err := store.Forget(cmd.Context(), args[0])
			if err == nil && !was {
				err = &exitError{exitNo, fmt.Errorf("%s has reported nothing", args[0])}
			}
			return clusterError(err)
		},
	}
}

func (t *clusterTerm) newSet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set COMMAND",
		Short: "Elements of sets, on all nodes",
		Long: `set has elements in the named sets of the policy on all nodes. With --ttl an element
ends by itself, also on a node that is cut off from etcd; one without stays there, and on
the node's disk, as the policy does. Elements that the policy's file has are not touched.`,
		Args: cobra.NoArgs,
		RunE: t.helpAlone,
	}
	var ttl time.Duration
	add := t.changeSet("add SET ELEMENT...", "Put elements into a set", func(ctx context.Context, store *etcd.Policies, list []policy.Element) error {
		if ttl != 0 && ttl < time.Second {
			return usageError("--ttl: %v: etcd counts whole seconds", ttl)
		}
		return store.AddElements(ctx, ttl, author(), list...)
	})
	add.Flags().DurationVar(&ttl, "ttl", 0, "how long they stay (30s, 5m); without it until they are deleted")
	del := t.changeSet("del SET ELEMENT...", "Take elements out of a set", func(ctx context.Context, store *etcd.Policies, list []policy.Element) error {
		n, err := store.DeleteElements(ctx, list...)
		if err == nil && n < len(list) {
			err = &exitError{exitNo, fmt.Errorf("%d of %s were not there", len(list)-n, count(len(list), "element"))}
		}
		return err
	})
	cmd.AddCommand(add, del, t.newSetList())
	return cmd
}

func (t *clusterTerm) changeSet(use, short string, do func(context.Context, *etcd.Policies, []policy.Element) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Long:    short + ". An element of a set of tuples is its parts with commas between.",
		Example: "  postern cluster set " + map[bool]string{true: "add blocked 192.0.2.0/28 --ttl 10m", false: "del blocked 192.0.2.0/28"}[use[:3] == "add"],
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			list, err := t.elements(cmd.Context(), store, args[0], args[1:])
			if err != nil {
				return clusterError(err)
			}
			return clusterError(do(cmd.Context(), store, list))
		},
	}
}

// elements reads what was written on the command line, by the set's type in the last good policy, or the one under way.
func (t *clusterTerm) elements(ctx context.Context, store *etcd.Policies, set string, texts []string) (list []policy.Element, err error) {
	if slices.Contains(policy.Reserved, set) {
		return nil, usageError("the set %s is the fence's: who holds an address is decided by leases (postern vips)", set)
	}
	s, err := store.State(ctx)
	if err != nil {
		return nil, err
	}
	if s.Rollout == nil {
		return nil, &exitError{exitNo, fmt.Errorf("%w: no policy has been put", policy.ErrNoVersion)}
	}
	v, err := store.Version(ctx, s.Rollout.Number)
	if err != nil {
		return nil, err
	}
	p, _, err := firewall.Parse(fmt.Sprintf("version %d", v.Number), []byte(v.Text))
	if err != nil {
		return nil, &exitError{exitNo, err}
	}
	for _, d := range p.Sets {
		if d.Name != set {
			continue
		}
		for _, text := range texts {
			e := policy.Element{Set: set}
			if e.Parts, err = splitElement(text); err == nil {
				_, err = d.Element(e.Parts...)
			}
			if err != nil {
				return nil, usageError("%s: %v", text, err)
			}
			list = append(list, e)
		}
		return list, nil
	}
	return nil, &exitError{exitNo, fmt.Errorf("version %d of the policy has no set %q", v.Number, set)}
}

// setElement is one in JSON.
type setElement struct {
	policy.Element
	Remaining time.Duration `json:"remaining_ns,omitempty"`
}

func (t *clusterTerm) newSetList() *cobra.Command {
	return &cobra.Command{
		Use:   "list [SET]",
		Short: "List the elements that are on all nodes",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, store, err := t.store()
			if err != nil {
				return err
			}
			defer store.Close()
			s, err := store.State(cmd.Context())
			if err != nil {
				return clusterError(err)
			}
			enc := newJSON(t.out)
			for _, key := range slices.Sorted(maps.Keys(s.Elements)) {
				x := setElement{Element: s.Elements[key]}
				if len(args) > 0 && x.Set != args[0] {
					continue
				}
				line := x.Set + " " + joinElement(x.Parts)
				if x.Lease != 0 {
					if x.Remaining, err = store.Remaining(cmd.Context(), x.Lease); err != nil {
						return clusterError(err)
					}
					line += fmt.Sprintf(" for %v", x.Remaining)
				}
				if t.asJSON {
					err = enc.Encode(x)
				} else {
					_, err = fmt.Fprintln(t.out, line)
				}
				if err != nil {
					return ioError(err)
				}
			}
			return nil
		},
	}
}
