package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/postern-fw/postern/internal/capture"
	"github.com/postern-fw/postern/internal/control"
)

func newRun(t *term) *cobra.Command {
	r := runner{t: t, reloads: make(chan chan<- reloaded)}
	cmd := &cobra.Command{
		Use:   "run -f FILE",
		Short: "Put a policy in force and keep it in step",
		Long: `run puts a policy in force as apply does, and stays: it follows interfaces that come
and go, reads the file again when it changes or at SIGHUP, prints events, hands them
to every "postern monitor", and serves metrics. A file that is wrong is reported and
leaves the policy in force as it is.

What it enforces stays when it ends, unless --flush-on-exit says otherwise. There is
one for each network namespace. To systemd it is a service of Type=notify-reload.

Exit code 0 at an interrupt or SIGTERM; before it has begun, those of apply.`,
		Example: `  postern run -f /etc/postern/policy.yaml
  postern run -f policy.yaml --metrics 127.0.0.1:9477 --quiet`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.file == capture.Stdin {
				return usageError("-f: standard input cannot be read again; name a file, or use postern apply")
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return r.run(ctx)
		},
	}
	policyFlag(cmd, &r.file)
	cmd.Flags().StringVar(&r.metrics, "metrics", "", "serve Prometheus metrics at `ADDR`: host:port on the loopback interface, or unix:PATH")
	cmd.Flags().BoolVar(&r.flush, "flush-on-exit", false, "take away at the end what is enforced")
	cmd.Flags().BoolVarP(&r.quiet, "quiet", "q", false, "print no events; monitors are told of them all the same")
	cmd.Flags().BoolVar(&r.asJSON, "json", false, "one object an event, as postern monitor --json")
	return cmd
}

// runner is a `postern run`.
type runner struct {
	t             *term
	file, metrics string
	flush         bool
	quiet, asJSON bool

	log     *slog.Logger
	hub     control.Hub
	count   reloadCount
	reloads chan chan<- reloaded
	// text is the file's as it was read last, unread why that failed.
	text   []byte
	unread string
}

func (r *runner) run(ctx context.Context) error {
	r.log = newLog(r.t.errs)
	server, err := r.listen()
	if err != nil {
		return err
	}
	defer server.Close()
	metrics, err := r.newMetrics()
	if err != nil {
		return err
	}
	defer metrics.Close()
	if err := r.load(); err != nil {
		return err
	}
	watch, err := watchFile(r.file)
	if err != nil {
		return &exitError{exitMachine, err}
	}
	defer watch.Close()

	// What ends with an error ends all.
	jobs, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() {
		r.notify(daemon.SdNotifyStopping)
		_ = server.Close()
		_ = metrics.Close()
	})()
	jobs.Go(server.Serve)
	jobs.Go(metrics.serve)
	jobs.Go(func() error { watch.run(ctx, r.log); return nil })
	jobs.Go(func() error { return unlessDone(ctx, r.t.machine.host.Follow(ctx, r.log)) })
	jobs.Go(func() error { return r.readEvents(ctx) })
	if !r.quiet {
		jobs.Go(func() error { return r.printEvents(ctx) })
	}
	jobs.Go(func() error { r.loop(ctx, watch.changed); return nil })
	return r.end(jobs.Wait())
}

func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// listen takes the control socket, which makes this the namespace's only one.
func (r *runner) listen() (*control.Server, error) {
	path, err := r.t.machine.socket()
	if err != nil {
		return nil, r.t.refused(err)
	}
	server, err := control.Listen(path, control.Service{Status: r.t.machine.host.Status, Reload: r.ask, Events: &r.hub})
	if err != nil {
		return nil, r.t.refused(err)
	}
	return server, nil
}

// loop does one thing at a time: policies are put in force nowhere else.
func (r *runner) loop(ctx context.Context, changed <-chan struct{}) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)
	alive, stop := watchdog()
	defer stop()
	r.notify(daemon.SdNotifyReady)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			_, _ = r.reload(true) // it has told why
		case <-changed:
			_, _ = r.reload(false)
		case ask := <-r.reloads:
			status, err := r.reload(true)
			ask <- reloaded{status, err}
		case <-alive:
			r.notify(daemon.SdNotifyWatchdog)
		}
	}
}

// end is what is left to do, however the jobs ended.
func (r *runner) end(failed error) error {
	if r.flush {
		failed = errors.Join(failed, r.t.machine.host.Flush())
	}
	if failed != nil {
		return r.t.refused(failed)
	}
	return nil
}
