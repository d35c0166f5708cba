package main

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-fw/postern/internal/capture"
	"github.com/postern-fw/postern/kernel"
	"github.com/spf13/cobra"
)

func newSet(t *term) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set COMMAND",
		Short: "Change the sets of the policy in force",
		Long: `set changes and shows the sets of the policy in force, without reloading it. An
element is written as in the policy file; the parts of a tuple have commas between
them. Elements come from standard input, one a line, where - stands for them.`,
		Example: `  postern set add vips 192.0.2.11
  postern set add leases 02:00:00:00:00:01,192.0.2.5 --ttl 30s
  postern set add vips - < addresses
  postern set list leases`,
		Args:                  cobra.NoArgs,
		DisableFlagsInUseLine: true,
		RunE:                  t.helpAlone,
	}
	cmd.AddCommand(newSetAdd(t), newSetDel(t), newSetList(t))
	return cmd
}

func newSetAdd(t *term) *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "add SET ELEMENT...",
		Short: "Put elements into a set",
		Long: `add puts elements into a set, or gives those it has a new end. With --ttl they are
gone after that time, counted from the start of this command: what comes too late,
because the command or the machine was stopped meanwhile, is gone already.

Exit code 0 if all were added, 1 if there is no such set.`,
		Example: `  postern set add vips 192.0.2.11 192.0.2.16/28
  postern set add leases 02:00:00:00:00:01,192.0.2.5 --ttl 30s
  postern set add vips - < addresses`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: t.completeSet,
		RunE: func(cmd *cobra.Command, args []string) error {
			deadline := int64(0)
			if cmd.Flags().Changed("ttl") {
				if ttl <= 0 {
					return usageError("--ttl: %v is no time to live; write it like 30s or 5m", ttl)
				}
				deadline = t.machine.began + int64(ttl)
			}
			elements, err := t.elements(args[1:])
			if err != nil {
				return err
			}
			return t.refused(t.machine.host.AddToSet(args[0], deadline, elements...))
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "let the elements be gone after `DURATION` (30s, 5m)")
	return cmd
}

func newSetDel(t *term) *cobra.Command {
	return &cobra.Command{
		Use:   "del SET ELEMENT...",
		Short: "Take elements out of a set",
		Long: `del takes elements out of a set, written as they were when they were put in.

Exit code 0 if all were there, 1 if not; those that were are gone then, too.`,
		Example:           "  postern set del vips 192.0.2.11\n  postern set del leases 02:00:00:00:00:01,192.0.2.5",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: t.completeSet,
		RunE: func(_ *cobra.Command, args []string) error {
			elements, err := t.elements(args[1:])
			if err != nil {
				return err
			}
			n, err := t.machine.host.DeleteFromSet(args[0], elements...)
			if err != nil {
				return t.refused(err)
			}
			if n < len(elements) {
				return &exitError{exitNo, fmt.Errorf("only %d of %s stood in set %s", n, count(len(elements), "element"), args[0])}
			}
			return nil
		},
	}
}

func newSetList(t *term) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list [SET]",
		Short: "Show the sets in force, or what one holds",
		Long: `list shows the elements of a set with the time they have left, or the sets that
there are. Those that stand in the policy file are marked.`,
		Example:           "  postern set list\n  postern set list leases --json",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: t.completeSet,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return t.listSets(asJSON)
			}
			return t.listSet(args[0], asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object an element, or a set")
	return cmd
}

func (t *term) listSets(asJSON bool) error {
	sets, err := t.machine.host.Sets()
	if err != nil {
		return t.refused(err)
	}
	enc, w := newJSON(t.out), table(t.out)
	if !asJSON {
		fmt.Fprintf(w, "SET\tTYPE\tELEMENTS\n")
	}
	for i := range sets {
		if asJSON {
			err = enc.Encode(&sets[i])
		} else {
			_, err = fmt.Fprintf(w, "%s\t%s\t%d\n", sets[i].Name, strings.Join(sets[i].Types, ","), sets[i].Elements)
		}
		if err != nil {
			return ioError(err)
		}
	}
	return ioError(w.Flush())
}

func (t *term) listSet(name string, asJSON bool) error {
	elements, err := t.machine.host.ListSet(name)
	if err != nil {
		return t.refused(err)
	}
	slices.SortFunc(elements, func(a, b kernel.Element) int { return slices.CompareFunc(a.Text, b.Text, compareParts) })
	out := bufio.NewWriter(t.out)
	enc := newJSON(out)
	for i := range elements {
		if asJSON {
			err = enc.Encode(&elements[i])
		} else {
			_, err = fmt.Fprintln(out, elementLine(&elements[i]))
		}
		if err != nil {
			return ioError(err)
		}
	}
	return ioError(out.Flush())
}

// compareParts orders addresses, prefixes and ranges by their first address.
func compareParts(a, b string) int {
	first := func(s string) netip.Addr {
		s, _, _ = strings.Cut(s, "/")
		s, _, _ = strings.Cut(s, "..")
		addr, _ := netip.ParseAddr(s) // the zero Addr comes first
		return addr
	}
	return cmp.Or(first(a).Compare(first(b)), strings.Compare(a, b))
}

func elementLine(e *kernel.Element) string {
	line := joinElement(e.Text)
	if e.Remaining > 0 {
		line += "  for " + e.Remaining.Round(time.Millisecond).String()
	}
	if e.Declared {
		line += "  (policy file)"
	}
	return line
}

// elements reads those of a command line, and those of standard input where - stands.
func (t *term) elements(args []string) (elements [][]string, err error) {
	add := func(s string) error {
		parts, err := splitElement(s)
		elements = append(elements, parts)
		return err
	}
	for _, arg := range args {
		if arg != capture.Stdin {
			if err := add(arg); err != nil {
				return nil, usageError("%w", err)
			}
			continue
		}
		lines := bufio.NewScanner(t.in)
		for n := 1; lines.Scan(); n++ {
			line := strings.TrimSpace(lines.Text())
			if line == "" || line[0] == '#' {
				continue
			}
			if err := add(line); err != nil {
				return nil, usageError("standard input, line %d: %w", n, err)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, &exitError{exitMachine, fmt.Errorf("standard input: %w", err)}
		}
	}
	return elements, nil
}

// splitElement reads the parts of a tuple as those of a line of CSV (RFC 4180), so that
// a name with a comma in it can be written.
func splitElement(s string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(s))
	r.TrimLeadingSpace = true
	parts, err := r.Read()
	if err != nil || r.InputOffset() != int64(len(s)) {
		return nil, fmt.Errorf("%q is no element; write the parts of a tuple like 02:00:00:00:00:01,192.0.2.5", s)
	}
	return parts, nil
}

// joinElement is the inverse of splitElement.
func joinElement(parts []string) string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(parts) // a strings.Builder takes everything
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}

// completeSet completes the name of a set.
func (t *term) completeSet(_ *cobra.Command, args []string, word string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	sets, err := t.machine.host.Sets()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, s := range sets {
		if strings.HasPrefix(s.Name, word) {
			names = append(names, s.Name+"\t"+strings.Join(s.Types, ","))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
