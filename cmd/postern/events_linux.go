package main

import (
	"context"
	"errors"
	"time"

	"github.com/postern-fw/postern/internal/control"
	"github.com/postern-fw/postern/kernel"
)

// readEvents hands the kernel's events to everyone who reads the hub.
func (r *runner) readEvents(ctx context.Context) error {
	for told := false; ; {
		err := r.t.machine.host.Monitor(ctx, func(e *kernel.Event) error {
			r.hub.Publish(e)
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kernel.ErrBusy):
			if !told {
				r.log.Warn("events are told to another process, until it ends: " + err.Error())
			}
			told = true
		case errors.Is(err, kernel.ErrNothing): // somebody flushed
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// perSecond is how many events are printed in a second: whoever floods the wire must not
// flood the journal, too. Monitors are told of all.
const perSecond = 50

func (r *runner) printEvents(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	events := r.hub.Read()
	defer events.Close()
	return r.printSome(ctx, events, tick.C)
}

func (r *runner) printSome(ctx context.Context, events *control.Reader, second <-chan time.Time) error {
	p, printed, more := newPrinter(r.t, r.asJSON), 0, uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events.Events:
			if printed++; printed > perSecond {
				more++
			} else if err := p.print(e); err != nil {
				return err
			}
		case <-second:
			if more += events.Lost(); more > 0 {
				r.log.Warn("more events than are printed in a second; postern monitor shows all", "more", more)
			}
			printed, more = 0, 0
		}
	}
}
