package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
)

func newMonitor(t *term) *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Show refusals as they happen",
		Long: `monitor shows a line for each frame that is refused, and for what rules with "log"
or "mode: audit" did: when, the verdict and the rule, the interface, the frame, and
who sent it. It ends at an interrupt.

While a "postern run" is at work it hands the events to as many monitors as there
are; without one, only one can read them.`,
		Example: `  postern monitor
  postern monitor --json | jq 'select(.sender.uid != 0)'
  postern monitor -n 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("count") && limit < 1 {
				return usageError("-n: %d is no number of events", limit)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			m := monitor{printer: newPrinter(t, asJSON), limit: limit}
			return t.monitor(ctx, &m)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one object an event, with all its fields")
	cmd.Flags().IntVarP(&limit, "count", "n", 0, "end after `COUNT` events")
	return cmd
}

// monitor prints events until there were enough.
type monitor struct {
	printer
	limit, seen int
}

// errEnough ends reading.
var errEnough = errors.New("enough events")

func (m *monitor) event(e *control.Event) error {
	if err := m.print(e); err != nil {
		return err
	}
	if m.seen++; m.seen == m.limit {
		return errEnough
	}
	return nil
}

// monitor reads the events from the `postern run` if there is one.
func (t *term) monitor(ctx context.Context, m *monitor) error {
	c, err := t.machine.client()
	switch {
	case errors.Is(err, control.ErrNotRunning):
		err = t.machine.host.Monitor(ctx, func(e *kernel.Event) error { return m.event(control.NewEvent(e)) })
	case err == nil:
		defer c.Close()
		err = c.Events(ctx, func(e *control.Event, lost uint64) error {
			if lost > 0 {
				fmt.Fprintf(t.errs, "postern: %d events lost: they were not read in time\n", lost)
			}
			return m.event(e)
		})
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("process %d (postern run), which handed on the events, has ended", c.PID)
		}
	}
	var exit *exitError
	switch {
	case errors.Is(err, errEnough), ctx.Err() != nil:
		return nil
	case errors.As(err, &exit):
		return err
	}
	return t.refused(err)
}

// printer prints events on out.
type printer struct {
	t   *term
	enc *json.Encoder // nil: lines for people
}

func newPrinter(t *term, asJSON bool) printer {
	p := printer{t: t}
	if asJSON {
		p.enc = newJSON(t.out)
	}
	return p
}

func (p printer) print(e *control.Event) error {
	if p.enc != nil {
		return ioError(p.enc.Encode(e))
	}
	_, err := fmt.Fprintf(p.t.out, "%s  %s  %s  %s  %s  by %s\n", e.Time.Format("2006-01-02 15:04:05.000000"),
		p.t.paint.in(verdictColour(e.Verdict), fmt.Sprintf("%-7s", e.Verdict)), eventCause(e), graphic(e.Interface), e.Summary, sender(e.Sender))
	return ioError(err)
}

// eventCause is because for an event.
func eventCause(e *control.Event) string {
	s := e.Rule
	switch {
	case strings.HasPrefix(e.Reason, s+":"): // malformed, and why
		s = e.Reason
	case e.Reason != "rule" && e.Reason != s:
		s += " (" + e.Reason + ")"
	}
	if e.Audited {
		s += " (audit: would drop)"
	}
	return s
}

// sender names who sent a frame.
func sender(s *control.Sender) string {
	if s == nil {
		return "no socket"
	}
	line := fmt.Sprintf("%s[%d] uid %d", graphic(s.Comm), s.PID, s.UID)
	if s.Cgroup != "" {
		line += " " + graphic(s.Cgroup)
	}
	return line
}

// graphic keeps a name that its bearer chose from writing to the terminal what it likes.
func graphic(s string) string {
	quoted := strconv.QuoteToGraphic(s)
	return quoted[1 : len(quoted)-1]
}
