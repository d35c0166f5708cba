package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/postern-fw/postern/cluster"
	"github.com/postern-fw/postern/internal/control"
)

func newVips(t *term) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "vips",
		Short: "Tell who holds which virtual address",
		Long: `vips asks the agent of this network namespace who holds each address, since when, and
how much remains of the holder's lease. The exit code is 1 if nobody holds one of
them.`,
		Example: "  postern vips\n  postern vips --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s cluster.Status
			if err := t.askAgent(cmd.Context(), http.MethodGet, "/vips", &s); err != nil {
				return err
			}
			if asJSON {
				if err := newJSON(t.out).Encode(s); err != nil {
					return &exitError{exitMachine, err}
				}
			} else if err := t.printVips(&s); err != nil {
				return &exitError{exitMachine, err}
			}
			for _, a := range s.Addresses {
				if a.Node == "" {
					return answerNo
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object")
	return cmd
}

func (t *term) printVips(s *cluster.Status) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ADDRESS\tINTERFACE\tNODE\tSINCE\tLEASE\t")
	for _, a := range s.Addresses {
		node, since, lease, note := a.Node, "-", "-", ""
		if node == "" {
			node = "nobody"
		} else {
			since = a.Since.Local().Format(time.DateTime)
		}
		switch {
		case a.Remaining > 0:
			lease = a.Remaining.Round(100 * time.Millisecond).String()
		case a.Node == s.Node && s.Lease == nil:
			lease = "for ever"
		}
		switch {
		case a.Fault != "":
			note = a.Fault
		case a.Node == s.Node && !a.Open:
			note = "not announced"
		case a.Unable != "" && a.Unable != "drained":
			note = "not here: " + a.Unable
		}
		fmt.Fprintf(w, "%v\t%s\t%s\t%s\t%s\t%s\n", a.Address, a.Interface, node, since, lease, note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		drained := ""
		if n.Drained {
			drained = ", drained"
		}
		fmt.Fprintf(t.out, "%s holds %d%s\n", n.Node, n.Holds, drained)
	}
	if s.Fault != "" {
		fmt.Fprintln(t.out, "This node holds nothing: "+s.Fault)
	}
	return nil
}

func newAgentDrain(t *term) *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "drain",
		Short: "Give all addresses to other nodes, and take none",
		Long: `drain has the agent of this network namespace give its addresses back, one after the
other has shut its door, and returns when that is done. It takes none until postern agent
undrain, or until it is started anew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			var s cluster.Status
			return t.askAgent(ctx, http.MethodPost, "/drain", &s)
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait")
	return cmd
}

func newAgentUndrain(t *term) *cobra.Command {
	return &cobra.Command{
		Use:   "undrain",
		Short: "Take addresses again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s cluster.Status
			return t.askAgent(cmd.Context(), http.MethodPost, "/undrain", &s)
		},
	}
}

// askAgent asks the agent of this network namespace.
func (t *term) askAgent(ctx context.Context, method, path string, value any) error {
	cookie, err := t.machine.host.Cookie()
	if err != nil {
		return t.refused(err)
	}
	client, err := control.Dial(agentSocket(t.machine.sockets, cookie))
	if errors.Is(err, control.ErrNotRunning) {
		return &exitError{exitNo, errors.New("no postern agent in this network namespace")}
	}
	if err != nil {
		return t.refused(err)
	}
	defer client.Close()
	if err := client.Call(ctx, method, path, value); err != nil {
		return &exitError{exitMachine, err}
	}
	return nil
}

// leases is an election that knows how long others' leases last.
type leases interface {
	Remaining(context.Context, []int64) map[int64]time.Duration
}

// serveAgent answers at the control socket.
func serveAgent(mux *http.ServeMux, a *cluster.Agent, e cluster.Election) {
	status := func(r *http.Request, before error) (*cluster.Status, error) {
		if before != nil {
			return nil, before
		}
		s, err := a.Status(r.Context())
		if l, ok := e.(leases); ok && err == nil {
			remaining(r.Context(), s, l)
		}
		return s, err
	}
	mux.HandleFunc("GET /vips", func(w http.ResponseWriter, r *http.Request) {
		s, err := status(r, nil)
		control.Answer(w, http.StatusInternalServerError, s, err)
	})
	for path, do := range map[string]func(context.Context) error{"/drain": a.Drain, "/undrain": a.Undrain} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			err := do(r.Context())
			var s *cluster.Status
			if err == nil {
				s, err = a.Status(r.Context())
			}
			control.Answer(w, http.StatusInternalServerError, s, err)
		})
	}
}

// remaining asks for the leases of other nodes.
func remaining(ctx context.Context, s *cluster.Status, l leases) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ids := map[int64]bool{}
	var list []int64
	for _, a := range s.Addresses {
		if a.Node != "" && a.Node != s.Node && !ids[a.Lease] {
			ids[a.Lease] = true
			list = append(list, a.Lease)
		}
	}
	left := l.Remaining(ctx, list)
	for i := range s.Addresses {
		if a := &s.Addresses[i]; a.Remaining == 0 && a.Node != s.Node {
			a.Remaining = left[a.Lease]
		}
	}
}
